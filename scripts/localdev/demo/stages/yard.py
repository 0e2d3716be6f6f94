"""A yard in which mostly nothing happens, and a neighbour's window that is nobody's business."""

import json
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bundles.fetch import SCIKIT_IMAGE, member
from localdev.demo.stage import Configuration, Evidence, Stage
from localdev.demo.stages.tracks import portraits

CAMERA = "yard"
SIZE, FPS = (400, 224), 10
LENGTH, COMES, GOES = 100, 20, 50  # frames, and then from the beginning
WINDOW = ((0.74, 0.06), (0.98, 0.06), (0.98, 0.6), (0.74, 0.6))  # fractions of the picture
GONE = FPS  # frames without a face after which a visit is over
ALWAYS, WITH_MOTION = "yard_always", "yard"
DARK = 24  # a JPEG's black is not quite 0 beside what is bright

Image = np.ndarray[Any, Any]


def scene(folder: Path) -> None:
    """The frames as pictures, named in their order: a man crosses, and a neighbour stands in her window."""
    folder.mkdir(parents=True, exist_ok=True)
    data = member(SCIKIT_IMAGE, "skimage/data/motorcycle_left.png")
    yard = cv2.resize(np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)), SIZE)
    neighbour, man = (cv2.resize(face, (84, 96)) for face in portraits())
    put(yard, neighbour, 350, 78)
    chance = np.random.default_rng(1)
    for number in range(LENGTH):
        frame = yard.copy()
        if COMES <= number < GOES:
            put(frame, man, 50 + (number - COMES) * 7, 150)
        cv2.imwrite(str(folder / f"{number:04}.jpg"), cv2.add(frame, chance.integers(0, 8, frame.shape, np.uint8)))


def put(frame: Image, face: Image, x: int, y: int) -> None:
    height, width = face.shape[:2]
    frame[y - height // 2 : y + height // 2, x - width // 2 : x + width // 2] = face


def visits(frames: list[int], first: int, last: int) -> list[tuple[int, int]]:
    """(first, last) of each run of frames with a face that began after the frame `first` and was over before `last`."""
    found: list[tuple[int, int]] = []
    for frame in sorted(frames):
        if found and frame - found[-1][1] <= GONE:
            found[-1] = (found[-1][0], frame)
        else:
            found.append((frame, frame))
    return [(begin, end) for begin, end in found if first < begin and end + GONE < last]


def missed(there: list[tuple[int, int]], faces: list[int]) -> list[tuple[int, int]]:
    """Those visits of which no frame is among `faces`."""
    return [(begin, end) for begin, end in there if not any(begin <= frame <= end for frame in faces)]


class Motion(Stage):
    name = "motion"
    title = "a pipeline rests while nothing moves, and misses nobody"

    def prepare(self) -> None:
        self._scene = self.world.output / "yard"
        scene(self._scene)
        self._lock = threading.Lock()
        self._seen: dict[str, list[int]] = {ALWAYS: [], WITH_MOTION: []}  # frames, by pipeline
        self._faces: dict[str, list[int]] = {ALWAYS: [], WITH_MOTION: []}  # those with a face
        self._told: list[bool] = []

    def configuration(self) -> Configuration:
        camera = {"type": "images", "location": str(self._scene), "fps": FPS, "slots": 32}
        camera |= {"privacy_masks": [WINDOW], "motion": {"hold_s": 1}}
        source = {"type": "camera", "camera": CAMERA, "policy": "every"}
        backend = {"type": "onnx", "model": "FaceDetector"}
        pipelines = {
            ALWAYS: {"source": source, "backend": backend},
            WITH_MOTION: {"source": {**source, "when": "motion"}, "backend": backend},
        }
        rings = str(self.world.rings)
        return {
            "camera_capture": {"cameras": {CAMERA: camera}, "ring_directory": rings},
            "face_detector": {},
            "inferencer": {"pipelines": pipelines, "ring_directory": rings},
        }

    def begin(self) -> None:
        for pipeline in self._seen:
            self.world.hear(f"edgeml/inference/{pipeline}", self._result)
        self.world.hear(f"edgeml/camera/{CAMERA}/motion", self._motion)

    def _result(self, topic: str, payload: bytes) -> None:
        result = json.loads(payload)
        with self._lock:
            self._seen[result["pipeline"]].append(result["source"]["frame_id"])
            if result["results"]:
                self._faces[result["pipeline"]].append(result["source"]["frame_id"])

    def _motion(self, topic: str, payload: bytes) -> None:
        self._told.append(json.loads(payload)["moving"])

    def progress(self) -> str:
        always, resting = len(self._seen[ALWAYS]), len(self._seen[WITH_MOTION])
        return f"{resting} of {always} frames looked at, {sum(self._told)} times something moved"

    def evidence(self) -> Evidence:
        with self._lock:
            seen, faces = ({name: list(ids) for name, ids in kind.items()} for kind in (self._seen, self._faces))
        begun = max((min(ids) for ids in seen.values() if ids), default=0)
        there = visits(faces[ALWAYS], begun, max(seen[ALWAYS], default=0))
        unseen = missed(there, faces[WITH_MOTION])
        figures = {
            "inferences_without": len(seen[ALWAYS]),
            "inferences": len(seen[WITH_MOTION]),
            "visits": len(there),
            "missed": len(unseen),
            "motions_told": sum(self._told),
        }
        ok = bool(there) and not unseen and len(seen[WITH_MOTION]) < 0.8 * len(seen[ALWAYS]) and any(self._told)
        return Evidence(ok, figures, "expected each visit seen with fewer inferences than one for each frame")


class PrivacyMask(Stage):
    name = "privacy_mask"
    title = "a neighbour's window that no frame and no snapshot shows"
    needs = ("motion",)

    def begin(self) -> None:
        self._results = self._elsewhere = self._inside = 0
        self._picture: Path | None = None
        self._asked = False
        self.world.hear(f"edgeml/inference/{ALWAYS}", self._result)
        self.world.hear(f"edgeml/camera/{CAMERA}/reply", self._reply)

    def tick(self) -> None:
        if self._results and not self._asked:
            self._asked = True
            command = {"command": "snapshot", "request_id": self.name}
            self.world.core.publish(f"edgeml/camera/{CAMERA}/command", json.dumps(command).encode())

    def _result(self, topic: str, payload: bytes) -> None:
        self._results += 1
        for found in json.loads(payload)["results"]:
            x, y, width, height = found["box"]
            at = ((x + width / 2) / SIZE[0], (y + height / 2) / SIZE[1])
            if WINDOW[0][0] <= at[0] <= WINDOW[1][0] and WINDOW[0][1] <= at[1] <= WINDOW[2][1]:
                self._inside += 1
            else:
                self._elsewhere += 1

    def _reply(self, topic: str, payload: bytes) -> None:
        reply = json.loads(payload)
        if reply.get("request_id") == self.name:
            self._picture = Path(reply.get("path", ""))

    def progress(self) -> str:
        return f"{self._elsewhere} faces in the yard, {self._inside} in the window"

    def evidence(self) -> Evidence:
        left, top, right, bottom = WINDOW[0][0], WINDOW[0][1], WINDOW[2][0], WINDOW[2][1]
        shown = None if self._picture is None else cv2.imread(str(self._picture))
        brightest = -1
        if shown is not None:
            height, width = shown.shape[:2]
            inside = shown[int(top * height) : int(bottom * height), int(left * width) : int(right * width)]
            brightest = int(inside.max())
            cv2.imwrite(str(self.world.output / "yard.png"), shown)
        figures = {
            "faces_in_the_yard": self._elsewhere,
            "faces_in_the_window": self._inside,
            "brightest_hidden_pixel": brightest,
        }
        ok = self._elsewhere > 0 and self._inside == 0 and 0 <= brightest <= DARK
        return Evidence(ok, figures, "expected faces in the yard alone, and a snapshot that is black in the window")
