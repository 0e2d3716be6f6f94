"""CenterFace finds the one face of a real video, at the size the graph was stored with and at others."""

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest

from bundles.clips import face_clip
from edgeml import models
from model_store.face_detector.build import build

Image = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> ort.InferenceSession:
    folder = tmp_path_factory.mktemp("face_detector")
    build(folder)
    return models.open_session(models.load(folder), threads=1)


@pytest.fixture(scope="module")
def frame() -> Image:
    capture = cv2.VideoCapture(str(face_clip()))
    ok, image = capture.read()
    capture.release()
    assert ok
    return np.asarray(image, np.uint8)


def strongest(session: ort.InferenceSession, image: Image) -> tuple[float, float, float]:
    """Score and centre (x, y in parts of the image) of the strongest cell of the heat map."""
    tensor = cv2.dnn.blobFromImage(image, swapRB=True)
    heatmap = session.run(["heatmap"], {"input": tensor})[0][0, 0]
    row, column = np.unravel_index(heatmap.argmax(), heatmap.shape)
    return float(heatmap.max()), float((column + 0.5) / heatmap.shape[1]), float((row + 0.5) / heatmap.shape[0])


@pytest.mark.parametrize("size", [(544, 448), (320, 256), (640, 480)])
def test_the_face_is_found_at_any_size(session: ort.InferenceSession, frame: Image, size: tuple[int, int]) -> None:
    score, x, y = strongest(session, np.asarray(cv2.resize(frame, size), np.uint8))
    assert score > 0.7
    assert 0.3 < x < 0.7
    assert 0.2 < y < 0.7


def test_a_wall_is_no_face(session: ort.InferenceSession) -> None:
    wall = np.random.default_rng(1).normal(128, 10, (256, 320, 3)).clip(0, 255).astype(np.uint8)
    assert strongest(session, wall)[0] < 0.3


def test_a_batch_of_frames_runs_at_once(session: ort.InferenceSession, frame: Image) -> None:
    resized = cv2.resize(frame, (320, 256))
    batch = cv2.dnn.blobFromImages([resized, resized[:, ::-1].copy()], swapRB=True)
    heatmap = session.run(["heatmap"], {"input": batch})[0]
    assert heatmap.shape == (2, 1, 64, 80)
    assert heatmap[1].max() > 0.7


def test_nothing_of_the_model_lies_in_the_sources() -> None:
    sources = Path(build.__code__.co_filename).parent
    assert not list(sources.glob("*.onnx"))
