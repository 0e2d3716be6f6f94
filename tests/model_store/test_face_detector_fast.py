"""BlazeFace finds the face of a real video where CenterFace finds it, and its points."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from bundles.clips import face_clip
from edgeml import models
from edgeml.messages import Detection
from fitting_support import opened
from inferencer.tasks.runner import Runner
from inferencer_support import sample
from model_store.face_detector.build import build as build_centerface
from model_store.face_detector_fast.build import build


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    folder = tmp_path_factory.mktemp("fast")
    build(folder)
    assert models.load(folder).manifest.license == "Apache-2.0"
    return opened(folder)


@pytest.fixture(scope="module")
def centerface(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    folder = tmp_path_factory.mktemp("centerface")
    build_centerface(folder)
    return opened(folder)


def answer(runner: Runner, image: object) -> list[Detection]:
    outcome = runner.infer(sample(image))
    assert outcome is not None
    found: list[Detection] = outcome.results
    return found


@pytest.mark.parametrize("number", [0, 30, 60, 90])
@pytest.mark.parametrize("height", [720, 448])
def test_it_finds_what_centerface_finds(fast: Runner, centerface: Runner, number: int, height: int) -> None:
    capture = cv2.VideoCapture(str(face_clip()))
    capture.set(cv2.CAP_PROP_POS_FRAMES, number)
    ok, frame = capture.read()
    capture.release()
    assert ok
    image = cv2.resize(frame, (height * 176 // 144, height), interpolation=cv2.INTER_CUBIC)
    (ours,), (theirs,) = answer(fast, image), answer(centerface, image)
    assert ours.label == "face"
    one, other = np.array(ours.box), np.array(theirs.box)
    sides = np.minimum(one[:2] + one[2:], other[:2] + other[2:]) - np.maximum(one[:2], other[:2])
    both = sides.clip(0).prod()
    assert both > 0.45 * (one[2:].prod() + other[2:].prod() - both)
    eyes, nose = np.array(ours.landmarks[:2]), np.array(ours.landmarks[2])
    near = 0.15 * theirs.box[2]  # the two models mark an eye and a nose not quite alike
    assert np.abs(eyes - np.array(theirs.landmarks[:2])).max() < near
    assert np.abs(nose - np.array(theirs.landmarks[2])).max() < near


def test_a_wall_is_no_face(fast: Runner) -> None:
    wall = np.random.default_rng(1).normal(128, 10, (720, 1280, 3)).clip(0, 255).astype(np.uint8)
    assert answer(fast, wall) == []


def test_nothing_of_the_model_lies_in_the_sources() -> None:
    assert not list(Path(build.__code__.co_filename).parent.glob("*.onnx"))
