"""What one pipeline detects another one looks at: which crops, how many at once, and what is said of them."""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from onnx import TensorProto, helper

from bundles.clips import face_clip
from edgeml import models
from edgeml.config import load
from edgeml.errors import ConfigError
from edgeml.frames import FrameReader, FrameWriter
from edgeml.messages import Classification, Detection, Hidden, ModelRef, SampleRef
from inferencer import sessions
from inferencer.assembly import check
from inferencer.backends.onnx import OnnxBackend
from inferencer.config import Config
from inferencer.sample import Outcome, Sample, Timer
from inferencer.sources import detections
from inferencer.sources.detections import DetectionSamples, DetectionsSource, Offers
from inferencer.tasks import runner_of
from inferencer.tracking.tracker import Tracker
from inferencer_support import classifier, describe, make_context, picture, pipeline, place, sample, save
from localdev.workspace import bundle
from support import Standalone

SIZE = (320, 240)
FRAME = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)


class Chain:
    """A source that looks at the pipeline `faces`, and what that tells it."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.tracker = Tracker(itertools.count(1).__next__, lost_s=1.0)
        self.context = make_context(folder)
        source = DetectionsSource(pipeline="faces", **settings)
        configured = pipeline(OnnxBackend(model="M"), source)
        where = place(self.context, configured, takers={})
        self.samples: Any = source.open(where)
        assert isinstance(self.samples, DetectionSamples)
        where = place(self.context, configured, takers=where.takers)
        object.__setattr__(where, "name", "faces")
        self.offers = Offers(where)

    def see(self, now_s: float, found: Sequence[Detection], *, hidden: Hidden | None = None, **fields: Any) -> None:
        step = self.tracker.update(found, 0.5, now_s, 1e9 + now_s)
        source = SampleRef(camera="c", frame_id=round(now_s * 10), captured_at=1e9 + now_s)
        told = [
            Detection(one.label, one.score, one.box, track=track.id if track else 0)
            for one, track in zip(found, step.tracks, strict=True)
        ]
        outcome = Outcome("detection", ModelRef("m", "1"), told, Timer(), step=step, hidden=hidden)
        self.offers.put(Sample(FRAME, source, int(now_s * 1e9), "rgb24", **fields), outcome, None)  # type: ignore[arg-type]

    def taken(self) -> list[Sample]:
        first = self.samples.next(0)
        return [] if first is None else [first, *self.samples.more(1000)]

    def go_on(self, times: Iterable[float], found: Sequence[Detection]) -> list[tuple[float, int]]:
        """When which track was looked at."""
        looked = []
        for now_s in times:
            self.see(float(now_s), found)
            looked += [(round(float(now_s), 1), each.source.track) for each in self.taken()]
        return looked


def at(x: float, score: float = 0.9, label: str = "face", side: float = 40) -> Detection:
    return Detection(label, score, (x, 100, side, side * 1.5))


def test_each_detection_is_looked_at_with_its_own_pixels(tmp_path: Path) -> None:
    chain = Chain(tmp_path, margin=0.25)
    chain.see(0.7, [at(20), at(200)])
    one, other = chain.taken()
    assert one.source == SampleRef(
        camera="c", frame_id=7, captured_at=1e9 + 0.7, pipeline="faces", index=0, track=1, region=(10, 85, 60, 90)
    )
    assert (other.source.index, other.source.track, other.pixel_format) == (1, 2, "rgb24")
    assert np.array_equal(one.image, FRAME[85:175, 10:70])
    assert not np.shares_memory(one.image, FRAME)
    assert one.arrived_ns == int(0.7e9)
    assert chain.taken() == []


def test_a_square_is_the_longer_side_and_ends_at_the_border(tmp_path: Path) -> None:
    chain = Chain(tmp_path, square=True)
    chain.see(0, [at(100), at(0)])
    assert [each.source.region for each in chain.taken()] == [(90, 100, 60, 60), (0, 100, 50, 60)]


def test_labels_and_scores_choose(tmp_path: Path) -> None:
    chain = Chain(tmp_path, labels=("face",), min_score=0.6)
    chain.see(0, [at(20), at(100, 0.5), at(200, label="hand"), at(900)])
    assert [each.source.index for each in chain.taken()] == [0]


TEN = [round(number / 10, 1) for number in range(50)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"per_track": "first"}, [(0.0, 1)]),
        ({"per_track": "interval", "per_track_s": 2.0}, [(0.0, 1), (2.0, 1), (4.0, 1)]),
        ({"per_track": "best", "per_track_s": 1.5}, [(1.5, 1)]),
    ],
    ids=["first", "interval", "best"],
)
def test_of_an_object_so_many_are_looked_at(tmp_path: Path, settings: Any, expected: list[Any]) -> None:
    assert Chain(tmp_path, **settings).go_on(TEN, [at(20)]) == expected


def test_the_best_of_the_first_seconds_is_looked_at_or_of_those_there_were(tmp_path: Path) -> None:
    chain = Chain(tmp_path, per_track="best", per_track_s=2.0)
    for now_s in TEN[:12]:
        chain.see(now_s, [at(20, 0.95 if now_s == 0.5 else 0.7)])
    assert chain.taken() == []
    for now_s in (1.5, 2.0, 2.5, 3.0):  # gone before the time was over
        chain.see(now_s, [])
    assert [each.source.frame_id for each in chain.taken()] == [5]
    for now_s in np.arange(4, 9, 0.1):
        chain.see(float(now_s), [at(200, 0.9 if now_s < 7 else 0.99)])
    (best,) = chain.taken()
    assert best.track is not None
    assert best.source.track == best.track.id == 2


def test_without_tracks_there_is_no_first_of_an_object(tmp_path: Path) -> None:
    chain = Chain(tmp_path, per_track="first")
    outcome = Outcome("detection", ModelRef("m", "1"), [at(20)], Timer())
    chain.offers.put(sample(FRAME), outcome, None)  # type: ignore[arg-type]
    assert chain.taken() == []


def test_a_torn_crop_is_not_looked_at_and_the_next_one_is(tmp_path: Path) -> None:
    chain = Chain(tmp_path, per_track="first")
    chain.see(0, [at(20)], valid=lambda: False)
    assert chain.taken() == []
    chain.see(0.1, [at(20)])
    assert [each.source.frame_id for each in chain.taken()] == [1]
    assert chain.context.health.counter("pipelines.p.crops_lost") == 1


def test_what_waits_is_bounded_by_number_and_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain = Chain(tmp_path, queue=3)
    for now_s in TEN[:10]:
        chain.see(now_s, [at(20)])
    assert [each.source.frame_id for each in chain.taken()] == [7, 8, 9]
    assert chain.context.health.counter("pipelines.p.crops_dropped") == 7
    monkeypatch.setattr(detections, "MAX_BYTES", 2 * 40 * 60 * 3)
    for now_s in TEN[10:20]:
        chain.see(now_s, [at(20)])
    assert len(chain.taken()) == 2
    best = Chain(tmp_path, per_track="best", per_track_s=100)
    assert len(best.go_on(TEN, [at(20), at(100), at(200), at(270)])) >= 2  # rather early than without a bound


def test_pixels_are_held_until_the_model_has_answered(tmp_path: Path) -> None:
    """The camera goes round its ring while the model works, as it does with large frames."""
    written = picture(red=200, size=(32, 32))
    with (
        FrameWriter("c", width=32, height=32, slots=2, directory=tmp_path) as writer,
        FrameReader("c", directory=tmp_path) as reader,
    ):
        writer.write(written)
        frame = reader.read(1.0, copy=False)
        assert frame is not None
        looked = Sample(frame.image, SampleRef(camera="c"), 0, "bgr24", valid=frame.valid)
        looked.hold()
        for _ in range(4):
            writer.write(written * 0)
        assert not frame.valid()
        assert looked.valid()
        assert np.array_equal(looked.image, written)
        torn = Sample(frame.image, SampleRef(camera="c"), 0, "bgr24", valid=frame.valid)
        torn.hold()
        assert not torn.valid()


def test_after_its_end_nothing_is_offered(tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    chain.samples.close()
    chain.see(0, [at(20)])
    assert chain.taken() == []


def test_what_a_picture_hides_its_crops_hide(tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    hidden = Hidden("box", ((90, 90, 200, 60), (0, 0, 20, 20)))
    chain.see(0, [at(100), at(20)], hidden=hidden)
    one, other = chain.taken()
    assert one.hidden == Hidden("box", ((0, 0, 40, 50),))
    assert other.hidden == Hidden("box", ())


FREE = [helper.make_node("ReduceMean", ["input", "axes"], ["scores"], keepdims=0)]
FIRST_ONLY = [  # its shapes promise a batch, and it answers each with the mean of all
    helper.make_node("ReduceMean", ["input", "axes"], ["means"], keepdims=0),
    helper.make_node("ReduceMean", ["means", "batch"], ["all"], keepdims=1),
    helper.make_node("Shape", ["means"], ["shape"]),
    helper.make_node("Expand", ["all", "shape"], ["scores"]),
]


def batched(folder: Path, nodes: Any, size: Any = "n") -> Path:
    classifier(folder)
    axes = [helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])]
    axes += [helper.make_tensor("batch", TensorProto.INT64, [1], [0])] if nodes is FIRST_ONLY else []
    given: Any = ("input", TensorProto.FLOAT, [size, 3, 8, 8])
    save(folder / "model.onnx", nodes, axes, given, ("scores", [size, 3]))
    declared: Any = {"name": "input", "layout": "NCHW", "size": [8, 8], "color": "bgr"}
    output = {"decoder": "softmax", "parameters": {"apply_softmax": True}}
    return describe(
        folder, "1.0.0",
        {"task": "classification", "input": declared, "output": output, "labels": ["blue", "green", "red"]},
    )  # fmt: skip


class Counting:
    """A session that counts its runs."""

    def __init__(self, session: Any) -> None:
        self._session, self.sizes = session, list[int]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, names: Any, given: Any) -> Any:
        self.sizes.append(len(given["input"]))
        return self._session.run(names, given)


@pytest.mark.parametrize(
    ("nodes", "size", "sizes"),
    [(FREE, "n", [5]), (FREE, 1, [1] * 5), (FIRST_ONLY, "n", [1] * 5)],
    ids=["free", "one", "only its shapes are"],
)
def test_crops_are_answered_together_where_the_model_can(tmp_path: Path, nodes: Any, size: Any, sizes: Any) -> None:
    loaded = models.load(batched(tmp_path / "b", nodes, size))
    session: Any = Counting(models.open_session(loaded))
    runner = runner_of(loaded, session, pipeline(OnnxBackend(model="M"), DetectionsSource(pipeline="faces")))
    session.sizes.clear()
    torn = sample(picture(red=200), valid=lambda: False)
    colours: list[Any] = [{"blue": 200}, {"green": 100}, {"red": 50}, {"blue": 10, "red": 20}, {"green": 255}]
    asked = [sample(picture(**colour)) for colour in colours]
    together = runner.infer_all([*asked[:3], torn, *asked[3:]])
    assert session.sizes == sizes
    assert together.pop(3) is None
    for one, each in zip(asked, together, strict=True):
        alone = runner.infer(one)
        assert alone is not None
        assert each is not None
        assert [found.label for found in each.results] == [found.label for found in alone.results]
        assert [found.score for found in each.results] == pytest.approx([found.score for found in alone.results])
        assert each.timer.inference > 0


def test_pipelines_with_the_same_model_share_a_session(tmp_path: Path) -> None:
    one, same = (models.load(classifier(tmp_path / name)) for name in ("a", "b"))
    other = models.load(classifier(tmp_path / "c", bias=1.0))
    how: Any = {"providers": ("CPUExecutionProvider",), "threads": 1, "optimization": "all"}
    before = sessions.count()
    first = sessions.session_of(one, **how)
    assert sessions.session_of(same, **how) is first
    assert sessions.session_of(other, **how) is not first
    assert sessions.session_of(one, **{**how, "threads": 2}) is not first
    assert sessions.count() == before + 1  # what nobody has is closed
    del first
    assert sessions.count() == before


CAMERA = {"source": {"type": "camera", "camera": "c"}, "backend": {"type": "onnx", "model": "M"}}


def looking_at(name: str, **fields: Any) -> dict[str, Any]:
    return {"source": {"type": "detections", "pipeline": name, **fields}, "backend": {"type": "onnx", "model": "M"}}


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "itself": ({"a": looking_at("a")}, "pipelines.a.source.pipeline: pipelines go round in a circle: a <- a"),
    "a circle": (
        {"a": looking_at("c"), "b": looking_at("a"), "c": looking_at("b"), "d": CAMERA},
        "pipelines.a.source.pipeline: pipelines go round in a circle: a <- c <- b <- a",
    ),
    "a circle elsewhere": ({"x": looking_at("a"), "a": looking_at("b"), "b": looking_at("a")}, "a <- b <- a"),
    "nobody": ({"a": looking_at("faces"), "face": CAMERA}, "pipelines.a.source.pipeline: there is no pipeline faces"),
    "no tracks": (
        {"a": CAMERA, "b": looking_at("a", per_track="best")},
        "pipelines.b.source.per_track: a does not follow objects",
    ),
    "tracks of crops": ({"a": CAMERA, "b": {**looking_at("a"), "tracking": {}}}, "pipelines.b.tracking"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_can_never_be_looked_at_is_refused(fault: str) -> None:
    pipelines, text = REFUSED[fault]
    with pytest.raises(ConfigError) as caught:
        check(load(Config, {"pipelines": pipelines}).pipelines, "thing")
    assert text in str(caught.value)


def test_chains_of_any_length_are_allowed() -> None:
    pipelines = {"a": {**CAMERA, "tracking": {}}, "b": looking_at("a", per_track="first"), "c": looking_at("b")}
    check(load(Config, {"pipelines": pipelines}).pipelines, "thing")


def test_a_face_has_an_expression_which_its_events_tell(tmp_path: Path) -> None:
    capture = cv2.VideoCapture(str(face_clip()))
    frames: list[Any] = [cv2.resize(capture.read()[1], (352, 288)) for _ in range(10)]
    capture.release()
    faces = {"type": "onnx", "model": "FaceDetector", "path": str(bundle("face_detector"))}
    emotion = {"type": "onnx", "model": "Emotion", "path": str(bundle("emotion"))}
    source = {"type": "detections", "pipeline": "faces", "margin": 0.2, "square": True}
    pipelines = {
        "faces": {
            "source": {"type": "camera", "camera": "c", "policy": "every"},
            "backend": faces,
            "tracking": {"lost_s": 1},
            "events": {"count_after_s": 0},
            "privacy": {},
        },
        "expression": {"source": source, "backend": emotion, "score_threshold": 0.01, "top_k": 7},
        "first": {"source": {**source, "per_track": "first", "join": False}, "backend": emotion},
    }
    config = {"ring_directory": str(tmp_path), "pipelines": pipelines}
    with (
        FrameWriter("c", width=352, height=288, directory=tmp_path) as writer,
        Standalone("inferencer", config, tmp_path / "w") as running,
    ):
        running.logged("model loaded model=FaceDetector")
        for number, image in enumerate(frames, 1):
            moment = int((100 + number / 10) * 1e9)
            writer.write(image, captured_ns=moment, wall_ns=int(1.7e18) + moment)
            found = running.message("edgeml/inference/faces", count=number)
            looked = running.message("edgeml/inference/expression", count=number)
        writer.write(frames[0] * 0, captured_ns=int(110e9), wall_ns=int(1.7e18 + 110e9))
        left = running.message("edgeml/event/faces", count=2)
        assert running.stop() == 0
    (face,) = found["results"]
    assert looked["task"] == "classification"
    assert looked["source"].items() >= {
        **found["source"], "pipeline": "faces", "track": face["track"]
    }.items()  # fmt: skip
    assert looked["source"]["region"][2] == pytest.approx(1.4 * face["box"][3], abs=3)
    assert looked["hidden"]["regions"]  # of the face, which the crop may show to nobody else
    assert sum(one["score"] for one in looked["results"]) == pytest.approx(1, abs=0.01)
    assert left["event"] == "left"
    assert left["said"] == {"expression": looked["results"][0]["label"]}
    firsts = [line["payload"] for line in running.lines if line["topic"] == "edgeml/inference/first"]
    assert len(firsts) == 1


def test_the_newest_answer_joins_the_object(tmp_path: Path) -> None:
    chain = Chain(tmp_path)
    chain.see(0, [at(20)])
    (crop,) = chain.taken()
    (joined,) = chain.samples.sinks()
    for label in ("sad", "happy"):
        results = [Classification(label, 0.9), Classification("neutral", 0.1)]
        joined.put(crop, Outcome("classification", ModelRef("m", "1"), results, Timer()), None)
    assert crop.track is not None
    assert crop.track.said == {"p": "happy"}
    assert list(Chain(tmp_path, join=False).samples.sinks()) == []
