"""One picture of each object, its best, however long it stays."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from bundles.clips import face_clip
from edgeml.component import Context
from edgeml.config import load
from edgeml.errors import ConfigError
from edgeml.frames import FrameWriter
from edgeml.messages import Detection, Hidden, ModelRef, SampleRef
from inferencer import shots
from inferencer.assembly import check
from inferencer.backends.onnx import OnnxBackend
from inferencer.config import Config
from inferencer.parts import Sink
from inferencer.sample import Outcome, Sample, Timer
from inferencer.sinks import crops
from inferencer.sinks.crops import Crops
from inferencer.sources.camera import CameraSource
from inferencer.tracking import Tracking
from inferencer.tracking.tracker import Tracker
from inferencer.tracks import Track
from inferencer_support import Answer, endpoint, make_context, pipeline, place
from localdev.workspace import bundle
from support import Standalone, eventually

SIZE = (320, 240)
SHARP = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
DULL = np.asarray(cv2.GaussianBlur(SHARP, (0, 0), 5))


def at(x: float, score: float = 0.9, side: float = 60) -> Detection:
    return Detection("face", score, (x, 100, side, side))


class Uploads:
    """An uploader that keeps what it is given."""

    def __init__(self) -> None:
        self.sent: dict[str, bytes] = {}

    def key(self, key: str, moment: float) -> str:
        return Path(key).stem.partition("-p-")[2]

    def put(self, bucket: str, key: str, data: bytes, content_type: str, *, at: float) -> None:
        assert self.key(key, at) not in self.sent
        self.sent[self.key(key, at)] = data


class Direct:
    """A writer that writes at once."""

    def put(self, write: Callable[[], None], size: int = 0) -> None:
        write()


class Watched:
    """The crops of a pipeline with tracking."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.uploads, self.tracker = Uploads(), Tracker(itertools.count(1).__next__)
        self.context: Context = make_context(folder)
        configured = pipeline(OnnxBackend(model="M"), CameraSource(camera="c"), tracking=Tracking())
        where = place(self.context, configured, uploader=lambda: self.uploads, writer=Direct)
        sink = Crops(bucket="bucket", when="best", margin=0.0, **settings).open(where)
        assert sink is not None
        self.sink: Sink = sink

    def see(self, now_s: float, found: Sequence[Detection], image: Any = SHARP, **fields: Any) -> list[Track]:
        step = self.tracker.update(found, 0.5, now_s, 1e9 + now_s)
        sample = Sample(image, SampleRef(camera="c"), int(now_s * 1e9), "bgr24", **fields)
        outcome = Outcome("detection", ModelRef("m", "1"), list(found), Timer(), step=step)
        self.sink.put(sample, outcome, None)  # type: ignore[arg-type]
        return [track for track in step.tracks if track is not None]

    def go_on(self, times: Iterable[float], found: Sequence[Detection], image: Any = SHARP) -> None:
        for now_s in times:
            self.see(float(now_s), found, image)

    @property
    def sizes(self) -> dict[str, tuple[int, int]]:
        decoded = {name: image_of(data) for name, data in self.uploads.sent.items()}
        return {name: (image.shape[1], image.shape[0]) for name, image in decoded.items()}


def image_of(data: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_each_object_has_one_picture_when_it_is_gone(tmp_path: Path) -> None:
    watched = Watched(tmp_path, best_after_s=0)
    watched.go_on(np.arange(0, 60, 0.1), [at(20), at(200)])
    assert watched.uploads.sent == {}
    watched.go_on(np.arange(60, 70, 0.1), [at(200)])
    assert list(watched.uploads.sent) == ["1-0"]
    watched.go_on(np.arange(70, 80, 0.1), [])
    assert list(watched.uploads.sent) == ["1-0", "2-0"]
    assert watched.context.health.counter("pipelines.p.crops") == 2
    assert watched.context.health.report().gauges["pipelines.p.pictures_held"] == 0


def test_who_stays_is_sent_once_after_a_while(tmp_path: Path) -> None:
    watched = Watched(tmp_path, best_after_s=2)
    watched.go_on(np.arange(0, 1.95, 0.1), [at(20)])
    assert watched.uploads.sent == {}
    watched.go_on(np.arange(2, 30, 0.1), [at(20, side=70)])
    watched.go_on(np.arange(30, 35, 0.1), [])
    assert list(watched.uploads.sent) == ["1-0"]


def test_what_is_seen_too_seldom_has_none(tmp_path: Path) -> None:
    watched = Watched(tmp_path, best_after_s=0, min_seen=5)
    watched.go_on([0, 0.1, 0.2, 0.3], [at(20)])
    watched.go_on(np.arange(1, 8, 0.5), [])
    watched.sink.close()
    assert watched.uploads.sent == {}


def test_the_best_of_all_frames_is_kept(tmp_path: Path) -> None:
    watched = Watched(tmp_path, best_after_s=0)
    watched.go_on(np.arange(0, 1, 0.1), [at(20, side=70)], DULL)
    watched.go_on(np.arange(1, 2, 0.1), [at(20, score=0.6, side=66)])
    watched.see(2.0, [at(20, side=68)])
    watched.go_on(np.arange(2.1, 3, 0.1), [at(20, side=71)], DULL)
    watched.go_on(np.arange(3, 8, 0.5), [])
    assert watched.sizes == {"1-0": (69, 69)}


@pytest.mark.parametrize(("replace", "names"), [(False, ["1-0"]), (True, ["1-0", "1-1"])])
def test_a_clearly_better_one_follows_under_another_key(tmp_path: Path, replace: bool, names: list[str]) -> None:
    watched = Watched(tmp_path, best_after_s=1, replace=replace)
    watched.go_on(np.arange(0, 2, 0.1), [at(20)], DULL)
    (track,) = watched.see(2.0, [at(20, side=62)], DULL)  # not clearly
    assert (list(watched.uploads.sent), track.picture) == (["1-0"], "1-0")
    watched.go_on(np.arange(2.1, 3, 0.1), [at(20)])
    watched.go_on(np.arange(3, 20, 0.1), [at(20, side=61)])
    watched.go_on(np.arange(20, 25, 0.5), [])
    assert list(watched.uploads.sent) == names
    assert track.picture == names[-1]


def test_the_end_of_the_pipeline_sends_what_is_held(tmp_path: Path) -> None:
    watched = Watched(tmp_path, best_after_s=0)
    watched.go_on(np.arange(0, 1, 0.1), [at(20), at(200)])
    watched.sink.close()
    watched.sink.close()
    assert list(watched.uploads.sent) == ["1-0", "2-0"]


def test_a_frame_that_is_overwritten_meanwhile_gives_no_picture(tmp_path: Path) -> None:
    watched = Watched(tmp_path, best_after_s=0)
    watched.go_on(np.arange(0, 1, 0.1), [at(20)], DULL)
    watched.see(1.0, [at(20, side=90)], valid=lambda: False)
    watched.sink.close()
    assert watched.sizes == {"1-0": (61, 61)}


def test_what_waits_is_bounded_in_bytes_and_nobody_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(tmp_path, best_after_s=0)
    watched.go_on([0], [at(20)])
    watched.sink.close()
    monkeypatch.setattr(crops, "MAX_HELD", 20_000)
    watched = Watched(tmp_path, best_after_s=0)
    watched.go_on(np.arange(0, 1, 0.1), [at(x) for x in (0, 62, 124, 186, 248)])
    assert 1 <= len(watched.uploads.sent) < 5
    watched.go_on(np.arange(1, 8, 0.5), [])
    assert len(watched.uploads.sent) == 5


def test_a_late_frame_brings_nobody_back(tmp_path: Path) -> None:
    watched = Watched(tmp_path, best_after_s=0)
    watched.go_on(np.arange(0, 1, 0.1), [at(20)])
    late = watched.tracker.update([at(20)], 0.5, 1.0, 1e9)
    watched.go_on(np.arange(2, 8, 0.5), [])
    outcome = Outcome("detection", ModelRef("m", "1"), [at(20)], Timer(), step=late)
    watched.sink.put(Sample(SHARP, SampleRef(), int(1e9), "bgr24"), outcome, None)  # type: ignore[arg-type]
    watched.sink.close()
    assert list(watched.uploads.sent) == ["1-0"]
    assert watched.context.health.report().gauges["pipelines.p.pictures_held"] == 0


FRONT = [(30.0, 40.0), (50.0, 40.0), (40.0, 50.0), (32.0, 60.0), (48.0, 60.0)]
ASIDE = [(34.0, 40.0), (44.0, 40.0), (46.0, 50.0), (36.0, 60.0), (45.0, 60.0)]
FACE = Detection("face", 0.9, (20.0, 20.0, 40.0, 60.0), FRONT)
CASES = {  # the worse one, and another one than FACE if that is the better
    "unsure": (msgspec.structs.replace(FACE, score=0.5), FACE),
    "small": (msgspec.structs.replace(FACE, landmarks=[], box=(20, 20, 20, 30)), FACE),
    "cut off": (msgspec.structs.replace(FACE, box=(0, 20, 40, 60)), FACE),
    "turned away": (msgspec.structs.replace(FACE, landmarks=ASIDE), FACE),
    "from the side": (msgspec.structs.replace(FACE, landmarks=[(40.0, 40.0)] * 5), FACE),
    "at an edge": (msgspec.structs.replace(FACE, box=(280, 20, 40, 60), landmarks=[]), FACE),
}


@pytest.mark.parametrize("case", CASES)
def test_what_makes_a_picture_worse(case: str) -> None:
    worse, better = CASES[case]
    assert 0 < shots.quality(worse, SIZE) < 0.8 * shots.quality(better, SIZE) < 1


def test_a_tilted_face_is_as_frontal_as_an_upright_one() -> None:
    turn = cv2.getRotationMatrix2D((40, 50), 30, 1.0)
    tilted = [tuple(map(float, turn @ (x, y, 1))) for x, y in FRONT]
    found = msgspec.structs.replace(FACE, landmarks=tilted)
    assert shots.frontal(found) == pytest.approx(shots.frontal(FACE))


def frames(count: int) -> list[Any]:
    capture = cv2.VideoCapture(str(face_clip()))
    found = [cv2.resize(capture.read()[1], (352, 288)) for _ in range(count)]
    capture.release()
    return found


@pytest.mark.parametrize("scale", [1, 3])
def test_a_blurred_face_is_less_sharp_at_any_size(scale: int) -> None:
    (face,) = frames(1)
    face = cv2.resize(face, None, fx=scale, fy=scale)
    blurred = cv2.GaussianBlur(face, (0, 0), 3 * scale)
    box = [side * scale for side in (120, 60, 100, 140)]
    assert shots.sharpness(blurred, box) < 0.5 * shots.sharpness(face, box)
    assert shots.sharpness(face, [400 * scale, 0, 10, 10]) == 0


@pytest.mark.parametrize("box", [(0, 9, 320, 1), (9, 0, 1, 240), (0, 9, 1e300, 0.6), (5, 5, 0, 0), (50, 50, -9, -9)])
def test_a_line_has_a_sharpness(box: tuple[float, float, float, float]) -> None:
    assert 0 <= shots.sharpness(SHARP, box) < 1


def test_best_needs_tracking() -> None:
    fields = {"source": {"type": "camera", "camera": "c"}, "backend": {"type": "onnx", "model": "M"}}
    with pytest.raises(ConfigError, match=r'p.crops.when: needs objects that are followed: add "tracking"'):
        check(load(Config, {"pipelines": {"p": {**fields, "crops": {"when": "best"}}}}).pipelines, "thing")


def test_a_face_that_stays_and_goes_is_one_upload_that_its_events_name(tmp_path: Path) -> None:
    config = {
        "ring_directory": str(tmp_path),
        "pipelines": {
            "p": {
                "source": {"type": "camera", "camera": "c", "policy": "every"},
                "backend": {"type": "onnx", "model": "FaceDetector", "path": str(bundle("face_detector"))},
                "tracking": {"lost_s": 1},
                "crops": {"bucket": "a-bucket", "when": "best", "best_after_s": 0},
                "events": {"count_after_s": 0},
            }
        },
    }
    clip, empty = frames(24), np.full((288, 352, 3), 90, np.uint8)
    with endpoint() as s3, FrameWriter("c", width=352, height=288, directory=tmp_path) as writer:
        s3.behave = lambda body: Answer(body=b"")
        env = {"AWS_ENDPOINT_URL_S3": s3.url, "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
        env["AWS_DEFAULT_REGION"] = "us-east-1"
        with Standalone("inferencer", config, tmp_path / "w", env=env) as running:
            running.logged("model loaded")
            for number, image in enumerate([*clip, *[empty] * 4, *clip[:8]], 1):
                moment = int((100 + number * (0.1 if number <= 24 else 0.5)) * 1e9)
                writer.write(image, captured_ns=moment, wall_ns=int(1.7e18) + moment)
                running.message("edgeml/inference/p", count=number)
            left = running.message("edgeml/event/p", count=2)
            assert left["event"] == "left"
            eventually(lambda: s3.requests, 20, "an upload")
            assert running.stop() == 0  # which sends the one who is there
        events = [line["payload"] for line in running.lines if line["topic"] == "edgeml/event/p"]
    assert [event["event"] for event in events] == ["appeared", "left", "appeared", "interrupted"]
    assert left["picture"] == events[0]["picture"]
    assert events[3]["picture"] not in ("", left["picture"])
    paths = {path.partition("?")[0] for path, _, _ in s3.requests}
    assert f"/a-bucket/{left['picture']}" in paths
    assert len(paths) <= 2


def test_hidden_is_hidden_in_the_best_one_too(tmp_path: Path) -> None:
    watched = Watched(tmp_path, best_after_s=0)
    for number in range(5):
        step = watched.tracker.update([at(20)], 0.5, number / 10, 1e9)
        hidden = Hidden("box", ((0, 0, 320, 240),))
        outcome = Outcome("detection", ModelRef("m", "1"), [at(20)], Timer(), step=step, hidden=hidden)
        watched.sink.put(Sample(SHARP, SampleRef(), number * 10**8, "bgr24"), outcome, None)  # type: ignore[arg-type]
    watched.sink.close()
    (data,) = watched.uploads.sent.values()
    assert image_of(data).max() < 8
