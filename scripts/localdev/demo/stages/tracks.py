"""People who pass a camera: each is told of once, and one good picture of each goes to the cloud."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bundles.clips import face_clip
from bundles.fetch import SCIKIT_IMAGE, member
from localdev.cloud.aws import Request, Response
from localdev.demo.stage import Configuration, Evidence, Stage
from localdev.demo.stages.faces import contact_sheet

CAMERA = "hall"
SIZE, FPS = (480, 270), 10
MIN_SEEN = 3
LOST_S = 0.8
PREFIX = "faces"  # below which the cloud looks at each picture

Image = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Visit:
    """Who is there from frame `begin` to `end`, and where the middle of the portrait goes meanwhile."""

    portrait: int
    begin: int
    end: int
    start: tuple[int, int]
    goal: tuple[int, int]


VISITS = (
    Visit(0, 0, 25, (100, 130), (310, 130)),
    Visit(1, 16, 56, (398, 120), (398, 126)),  # stands, and is there with the one before and the one after
    Visit(0, 44, 68, (230, 140), (84, 140)),
)
LENGTH = 80  # frames, and then from the beginning: nobody is there in the last second


def portraits() -> list[Image]:
    """An astronaut, and a man in a car."""
    astronaut = np.asarray(cv2.imdecode(np.frombuffer(member(SCIKIT_IMAGE, "skimage/data/astronaut.png"), np.uint8), 1))
    capture = cv2.VideoCapture(str(face_clip()))
    try:
        man = np.asarray(capture.read()[1])
    finally:
        capture.release()
    return [cv2.resize(astronaut[20:276, 110:350], (122, 130)), cv2.resize(man[:, 26:126], (90, 130))]


def scene(folder: Path) -> None:
    """The frames as pictures, named in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    faces, empty = portraits(), np.full((SIZE[1], SIZE[0], 3), (96, 104, 100), np.uint8)
    for number in range(LENGTH):
        frame = empty.copy()
        for visit in VISITS:
            if visit.begin <= number < visit.end:
                face, part = faces[visit.portrait], (number - visit.begin) / (visit.end - visit.begin)
                height, width = face.shape[:2]
                x, y = (round(a + part * (b - a)) for a, b in zip(visit.start, visit.goal, strict=True))
                left, top = x - width // 2, y - height // 2
                frame[top : top + height, left : left + width] = face
        cv2.imwrite(str(folder / f"{number:04}.jpg"), frame)


class Tracks(Stage):
    name = "tracks"
    title = "one event and one picture for each person, not one for each frame"

    def prepare(self) -> None:
        self._bucket = self.world.outputs["DataBucketName"]
        self._scene = self.world.root.parent / "output" / "hall"
        scene(self._scene)
        self._frames: list[int] = []  # that were looked at
        self._faces = 0
        self._left: list[str] = []  # keys of pictures of those who are gone
        self._people: list[str] = []
        self._sent: list[str] = []
        self._judged: set[str] = set()
        self._expected, self._asked, self._looked_at = (0, 0), 0, 0
        self._events = 0
        self._calls: list[str] = []  # of Rekognition, by key
        self._sheet: Path | None = None
        self.world.cloud.aws.observers.append(self._called)

    def configuration(self) -> Configuration:
        camera = {"type": "images", "location": str(self._scene), "fps": FPS, "slots": 32}
        pipeline = {
            "source": {"type": "camera", "camera": CAMERA},
            "backend": {"type": "onnx", "model": "FaceDetector", "max_side": 480},
            "tracking": {"lost_s": LOST_S},
            "iot_core": {"enabled": True, "when": "events"},
            "events": {"min_seen": MIN_SEEN, "lines": {"middle": {"points": [[0.4, 0], [0.4, 1]], "where": "centre"}}},
            "crops": {"bucket": self._bucket, "prefix": PREFIX, "when": "best", "best_after_s": 0, "margin": 0.8},
        }
        rings = str(self.world.rings)
        return {
            "camera_capture": {"cameras": {CAMERA: camera}, "ring_directory": rings},
            "face_detector": {},
            "inferencer": {"pipelines": {"hall": pipeline}, "ring_directory": rings},
        }

    def begin(self) -> None:
        self.world.hear("edgeml/inference/hall", self._result)
        self.world.hear("edgeml/event/hall", self._event)

    def _result(self, topic: str, payload: bytes) -> None:
        result = json.loads(payload)
        self._frames.append(result["source"]["frame_id"] - 1)
        self._faces += len(result["results"])

    def _event(self, topic: str, payload: bytes) -> None:
        event = json.loads(payload)
        self._events += 1
        if event["event"] == "left":
            self._left.append(event.get("picture", ""))

    def _called(self, request: Request, response: Response) -> None:
        if request.service == "rekognition":
            self._calls.append(json.loads(request.body)["Image"].get("S3Object", {}).get("Name", ""))

    def progress(self) -> str:
        return f"{self._faces} faces in frames, {self._events} events, {len(self._left)} people came and went"

    def finish(self) -> None:
        self._expected, self._people = (
            visits(list(self._frames)),
            list(self._left),
        )  # more may come and go while we look
        deadline = time.monotonic() + 10
        client = self.world.cloud.aws.client("s3")
        keys: set[str] = set()
        while time.monotonic() < deadline and not (keys and keys.issuperset(self._people)):
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=f"{PREFIX}/")
            keys = {item["Key"] for page in pages for item in page.get("Contents", [])}
            time.sleep(0.2)
        self.world.cloud.drain()
        self._sent = [key for key in self._people if key in keys]
        calls = [key for key in self._calls if key in self._people]
        self._asked, self._looked_at = len(calls), len(set(calls))  # a handler that is in trouble asks again
        table = self.world.cloud.aws.client("dynamodb").get_paginator("scan").paginate(TableName="rekognize-faces")
        self._judged = {item["s3key"]["S"] for page in table for item in page["Items"]} & set(self._sent)
        if self._sent:
            crops = [client.get_object(Bucket=self._bucket, Key=key)["Body"].read() for key in self._sent]
            self._sheet = self.world.output / "people.png"
            contact_sheet(crops, self._sent, self._sheet)

    def evidence(self) -> Evidence:
        people = len(self._people)
        figures: dict[str, Any] = {
            "people": people,
            "people_in_the_scene": self._expected,
            "uploads": len(self._sent),
            "rekognition_calls": self._asked,
            "with_emotions": len(self._judged),
            "uploads_with_one_for_each_face": self._faces,
            "events": self._events,
            "contact_sheet": str(self._sheet),
        }
        one_each = people == len(self._sent) == self._looked_at == len(self._judged)
        ok = one_each and 0 < self._expected[0] <= people <= self._expected[1]
        return Evidence(ok, figures, "expected one picture, and one call, for each person in the scene")


def visits(frames: list[int]) -> tuple[int, int]:
    """How many people came and went, as the scene was made, in frames of which these were looked at.

    At least those who were there in enough of them and are gone for long enough to be told of, at most all who were.
    """
    if not frames:
        return 0, 0
    gone = round(LOST_S * FPS) + FPS
    surely = possibly = 0
    for start in range(0, frames[-1] + 1, LENGTH):
        for visit in VISITS:
            begin, end = start + visit.begin, start + visit.end
            seen = sum(begin <= frame < end for frame in frames)
            possibly += seen > 0
            surely += seen > MIN_SEEN and frames[0] <= begin and end + gone <= frames[-1]
    return surely, possibly
