"""Which chains can be, and what they tell."""

from pathlib import Path
from typing import Any

import cv2
import pytest

from bundles.clips import face_clip
from chains_support import Chain, at
from edgeml.config import load
from edgeml.errors import ConfigError
from edgeml.frames import FrameWriter
from edgeml.messages import Classification, ModelRef
from inferencer.assembly import check
from inferencer.config import Config
from inferencer.sample import Outcome, Timer
from localdev.workspace import bundle
from support import Standalone

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
    "what was shown before": (
        {"a": CAMERA, "b": {**looking_at("a"), "privacy": {}}},
        "pipelines.b.privacy: a has shown the picture before",
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
