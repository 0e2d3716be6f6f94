"""What a pipeline hides is in none of its pictures: on no disk, in no bucket, by a real detector of faces."""

import contextlib
import json
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bundles.clips import face_clip
from edgeml import models
from edgeml.component import Context
from edgeml.config import load
from edgeml.errors import BundleError, ConfigError
from edgeml.frames import FrameWriter
from edgeml.messages import Classification, Detection, Hidden, ModelRef, Region, SampleRef
from edgeml.privacy import MAX_REGIONS, around
from inferencer.assembly import check
from inferencer.backends.onnx import OnnxBackend
from inferencer.backends.sagemaker import SageMakerBackend
from inferencer.config import Config
from inferencer.parts import Model
from inferencer.privacy import Privacy
from inferencer.sample import MAX_BOXES, Outcome, Sample, Timer
from inferencer.sources.camera import CameraSource
from inferencer.tasks import runner_of
from inferencer.tasks.boxes import suppressed
from inferencer.tracking import Tracking
from inferencer_support import Answer, classifier, endpoint, picture, pipeline, place
from localdev.cloud.faces import Faces
from localdev.workspace import bundle
from support import Standalone, eventually

SIZE = (352, 288)
METHODS = ("blur", "pixelate", "box")
AWS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def faces() -> Faces:
    return Faces(bundle("face_detector"), bundle("emotion"))


@pytest.fixture(scope="module")
def clip() -> list[Any]:
    capture = cv2.VideoCapture(str(face_clip()))
    found = [capture.read()[1] for _ in range(60)]
    capture.release()
    return [np.asarray(cv2.resize(frame, SIZE)) for frame in found[::20]]


def on_disk(folder: Path) -> list[tuple[str, bytes]]:
    """Pipeline and crop of what waits for S3 in a component's work folder."""
    with contextlib.closing(sqlite3.connect(folder / "s3.spool")) as opened:
        return [(topic.split("/")[1], payload) for topic, payload in opened.execute("SELECT topic, payload FROM items")]


def in_s3(
    requests: Iterable[tuple[str, dict[str, str], bytes]], crops: list[tuple[str, bytes]]
) -> list[tuple[str, bytes]]:
    """Which of `crops` were sent: bodies hold S3's own chunks, too, and are sent again where an answer was late."""
    bodies = {path: body for path, _, body in requests}
    found = []
    for path, body in bodies.items():
        (crop,) = {data for _, data in crops if data in body}
        found.append((path.split("/")[2], crop))
    return found


def seen(faces: Faces, jpegs: Iterable[tuple[str, bytes]]) -> dict[str, list[int]]:
    """How many faces are in each, by pipeline; larger and smaller ones are looked for, too."""
    found: dict[str, list[int]] = {}
    for name, data in jpegs:
        image = np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
        sizes = [cv2.resize(image, None, fx=scale, fy=scale) for scale in (0.7, 1, 2)]
        found.setdefault(name, []).append(max(len(faces.find(each)) for each in sizes))
    return found


def configured(rings: Path, **privacies: Any) -> dict[str, Any]:
    common = {
        "source": {"type": "camera", "camera": "c", "policy": "every"},
        "backend": {"type": "onnx", "model": "FaceDetector", "path": str(bundle("face_detector"))},
    }
    pipelines = {
        name: {**common, "privacy": privacy, "crops": {"bucket": "a-bucket", "prefix": name, "margin": 1.0}}
        for name, privacy in privacies.items()
    }
    return {"ring_directory": str(rings), "pipelines": pipelines}


def test_no_face_is_on_disk_or_in_s3(faces: Faces, clip: list[Any], tmp_path: Path) -> None:
    hides = {way: {"labels": ["face"], "method": way} for way in METHODS}
    config, work = configured(tmp_path, shown=None, **hides), tmp_path / "work"
    with endpoint() as s3, FrameWriter("c", width=SIZE[0], height=SIZE[1], directory=tmp_path) as writer:
        s3.behave = lambda body: Answer(503)
        env = {"AWS_ENDPOINT_URL_S3": s3.url, **AWS}
        with Standalone("inferencer", config, work, env=env) as running:
            told = running.message("edgeml/health/Inferencer")["privacy"]
            eventually(lambda: running.log.count("model loaded") == len(METHODS) + 1, 30, "models")
            for number, frame in enumerate(clip, 1):
                writer.write(frame)
                for name in config["pipelines"]:
                    running.message(f"edgeml/inference/{name}", count=number)
            assert running.stop() == 0
        crops = on_disk(work)
        found = seen(faces, crops)
        assert found.pop("shown") == [1] * len(clip)  # what is to be hidden is there, and found
        assert found == {way: [0] * len(clip) for way in METHODS}
        assert no_pixels(work, running, clip)
        s3.requests.clear()
        s3.behave = lambda body: Answer(body=b"")
        with Standalone("inferencer", config, work, env=env) as again:
            eventually(lambda: len({path for path, _, _ in s3.requests}) == 4 * len(clip), 20, "all crops")
            assert again.stop() == 0
    assert sorted(in_s3(s3.requests, crops)) == sorted(crops)  # and no other picture
    assert "hidden" not in running.last("edgeml/inference/shown")
    assert told == [{"pipeline": way, "camera": "c", "method": way, "labels": ["face"]} for way in METHODS]


def no_pixels(work: Path, running: Standalone, clip: list[Any]) -> bool:
    """Whether no file of the work folder holds a row of a face as it was; results say where the faces were."""
    results = [line["payload"] for line in running.lines if line["topic"] == "edgeml/inference/box"]
    rows = []
    for frame, result in zip(clip, results, strict=True):
        ((x, y, w, h),) = result["hidden"]["regions"]
        rows.append(frame[y + h // 2, x : x + w].tobytes())
    files = [path.read_bytes() for path in work.rglob("*") if path.is_file()]
    return not any(row in data for row in rows for data in files)


def test_it_is_told_of_many_pipelines_in_one_message(tmp_path: Path) -> None:
    """Rather without their labels than not at all: nobody would know that pictures are not to be shown."""
    labels = [f"{number:040}" for number in range(32)]
    waiting = {"source": {"type": "camera", "camera": "c"}, "backend": {"type": "onnx", "model": "Nowhere"}}
    pipelines = {f"p{number}": {**waiting, "privacy": {"labels": labels}} for number in range(12)}
    config = {"ring_directory": str(tmp_path), "pipelines": pipelines}
    with Standalone("inferencer", config, tmp_path / "work") as running:
        told = running.message("edgeml/health/Inferencer")["privacy"]
        assert running.stop() == 0
    assert told == [{"pipeline": name, "camera": "c", "method": "blur"} for name in pipelines]


class Fixed(Model):
    """Answers with what it was told to."""

    def __init__(self, *answers: Any, threshold: float = 0.5, task: Any = "detection") -> None:
        self._answers, self._threshold, self._task = list(answers), threshold, task

    def poll(self) -> bool:
        return True

    def infer(self, sample: Sample) -> Outcome | None:
        return Outcome(self._task, ModelRef("m", "1"), self._answers.pop(0), Timer(), "", self._threshold)


def hidden(context: Context, model: Model, privacy: Privacy, times: Iterable[float], **fields: Any) -> list[Outcome]:
    configured = pipeline(OnnxBackend(model="M"), CameraSource(camera="c"), privacy=privacy, **fields)
    private = privacy.around(model, place(context, configured))
    answers = [
        private.infer(Sample(picture(size=(100, 200)), SampleRef(camera="c"), int(at * 1e9), "bgr24")) for at in times
    ]
    return [answer for answer in answers if answer is not None]


def regions(outcome: Outcome) -> tuple[Region, ...]:
    assert outcome.hidden is not None
    return outcome.hidden.regions


FACE = Detection("face", 0.9, (10.0, 10.0, 20.0, 20.0))
DOUBTFUL = Detection("face", 0.2, (60.0, 10.0, 20.0, 20.0))
DOG = Detection("dog", 0.9, (120.0, 10.0, 20.0, 20.0))
ALL = [FACE, DOUBTFUL, DOG]


def test_what_is_doubtful_is_hidden_and_not_told(context: Context) -> None:
    (answer,) = hidden(context, Fixed(ALL), Privacy(labels=("face",), margin=0.0), [0])
    assert regions(answer) == ((10, 10, 20, 20), (60, 10, 20, 20))
    assert answer.results == [FACE, DOG]
    (answer,) = hidden(context, Fixed(ALL), Privacy(margin=0.0), [0])
    assert len(regions(answer)) == 3
    (answer,) = hidden(context, Fixed(ALL), Privacy(margin=0.0, low_score=0.3), [0], tracking=Tracking())
    assert len(regions(answer)) == 3  # what may be told of, or cut out, is hidden
    assert answer.results == ALL  # what to do with the doubtful one is for the tracks to say


def test_who_is_missed_for_a_moment_stays_hidden(context: Context) -> None:
    moved = Detection("face", 0.9, (14.0, 10.0, 20.0, 20.0))
    answers = [[FACE], [], [moved], [], []]
    found = hidden(context, Fixed(*answers), Privacy(margin=0.0, hold_s=1.0), [0, 0.5, 0.6, 1.5, 1.7])
    first, then = (10, 10, 20, 20), (14, 10, 20, 20)
    assert [regions(answer) for answer in found] == [(first,), (first,), (then,), (then,), ()]


def test_of_many_that_are_missed_all_stay_hidden(context: Context) -> None:
    crowd = [Detection("face", 0.9, (x * 10.0, y * 10.0, 5.0, 5.0)) for y in range(9) for x in range(20)]
    found = hidden(context, Fixed(crowd, [], crowd[:1]), Privacy(margin=0.0, hold_s=1.0), [0, 0.1, 0.2])
    for answer in found:
        left = np.zeros((100, 200), bool)
        for x, y, width, height in regions(answer):
            left[y : y + height, x : x + width] = True
        assert all(left[int(y) : int(y + h), int(x) : int(x + w)].all() for x, y, w, h in (one.box for one in crowd))


def test_many_frames_of_many_who_are_missed_are_bounded(context: Context) -> None:
    wandering = [
        [Detection("face", 0.9, (float(x), frame * 6.0, 2.0, 2.0)) for x in range(0, 200, 5)] for frame in range(15)
    ]
    found = hidden(context, Fixed(*wandering), Privacy(margin=0.0, hold_s=9.0), [frame / 10 for frame in range(15)])
    assert all(len(regions(answer)) <= MAX_REGIONS for answer in found)
    hid = np.zeros((100, 200), bool)
    for x, y, width, height in regions(found[-1]):
        hid[y : y + height, x : x + width] = True
    assert all(hid[frame * 6 + 1, 1:200:5].all() for frame in range(15))


def test_a_late_answer_does_not_make_others_older(context: Context) -> None:
    found = hidden(context, Fixed([FACE], [FACE], []), Privacy(margin=0.0, hold_s=1.0), [1.0, 0.2, 1.9])
    assert regions(found[-1]) == ((10, 10, 20, 20),)


def test_of_an_answer_without_boxes_all_is_hidden(context: Context) -> None:
    model = Fixed([Classification("cat", 0.9)], task="classification")
    (answer,) = hidden(context, model, Privacy(labels=("cat",)), [0])
    assert answer.hidden == Hidden("blur", ((0, 0, 200, 100),))


def test_of_a_picture_with_more_than_is_told_of_all_is_hidden(context: Context) -> None:
    crowd = [Detection("face", 0.9, (float(each % 200), 10.0, 1.0, 1.0)) for each in range(MAX_BOXES)]
    full, fewer = hidden(context, Fixed(crowd, crowd[1:]), Privacy(labels=("face",), hold_s=0.0), [0, 1])
    assert regions(full) == ((0, 0, 200, 100),)
    assert (0, 0, 200, 100) not in regions(fewer)


def test_everybody_in_a_crowd_is_found() -> None:
    """Each is seen many times before suppression: what is cut off before it would be shown."""
    where = [(x * 60.0, y * 60.0) for y in range(10) for x in range(25)]
    boxes = np.array([(x + near, y, 50.0, 50.0) for x, y in where for near in range(10)])
    scores = np.repeat(np.linspace(0.9, 0.2, len(where)), 10)
    assert {tuple(boxes[each, :2] // 60) for each in suppressed(boxes, scores, 0.1, 0.4)} == {
        (x // 60, y // 60) for x, y in where
    }


def test_a_model_without_the_label_is_refused(tmp_path: Path, context: Context) -> None:
    loaded = models.load(classifier(tmp_path / "b"))
    session = models.open_session(loaded)
    wanted = pipeline(OnnxBackend(model="M"), CameraSource(camera="c"), privacy=Privacy(labels=("red", "Face")))
    with pytest.raises(BundleError, match="privacy names Face, the model's labels are blue, green, red"):
        runner_of(loaded, session, wanted)


REMOTE = {"type": "sagemaker", "endpoint": "e", "task": "detection", "labels": ["face"]}
LOCAL = {"type": "onnx", "model": "M"}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "label of an endpoint": ({"backend": REMOTE, "privacy": {"labels": ["Face"]}}, "p.privacy.labels: Face is not in"),
    "label of a fallback": (
        {"backend": LOCAL, "fallback": {**REMOTE, "labels": []}, "privacy": {"labels": ["face"]}},
        "p.fallback.labels, there none",
    ),
    "method": ({"backend": LOCAL, "privacy": {"method": "smear"}}, "p.privacy.method"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_would_hide_nothing_is_refused(fault: str) -> None:
    fields, text = REFUSED[fault]
    with pytest.raises(ConfigError) as caught:
        camera = {"type": "camera", "camera": "c"}
        check(load(Config, {"pipelines": {"p": {"source": camera, **fields}}}).pipelines, "thing")
    assert text in str(caught.value)


def test_the_regions_of_a_remote_model_hold_its_doubtful_ones(tmp_path: Path, context: Context) -> None:
    settings = SageMakerBackend(endpoint="e", task="detection", labels=("face",))
    configured = pipeline(settings, CameraSource(camera="c"), privacy=Privacy(), score_threshold=0.5)
    model: Any = settings.open(place(context, configured))
    answer = json.dumps({"results": [{"label": "face", "score": s, "box": [1, 2, 3, 4]} for s in (0.9, 0.2, 0.05)]})
    assert [one.score for one in model.decode(answer.encode(), None)] == [0.9, 0.2]
    model.close()


def test_margins_are_part_of_a_region(context: Context) -> None:
    (answer,) = hidden(context, Fixed([FACE]), Privacy(margin=0.5), [0])
    assert regions(answer) == (around(FACE.box, 0.5, (200, 100)),)
