import cv2
import numpy as np
import pytest

from bundles.clips import face_clip
from edgeml import models
from edgeml.bundle import Bundle
from model_store.emotion.build import build


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("emotion")
    build(folder)
    return models.load(folder)


def test_each_face_of_a_batch_gets_seven_probabilities(bundle: Bundle) -> None:
    session = models.open_session(bundle, threads=1)
    faces = np.random.default_rng(3).uniform(-1, 1, (4, 64, 64, 1)).astype(np.float32)
    (probabilities,) = session.run(None, {"input": faces})
    assert probabilities.shape == (4, len(bundle.labels))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    (single,) = session.run(None, {"input": faces[2:3]})
    np.testing.assert_allclose(single[0], probabilities[2], atol=1e-5)


def test_a_real_face_gets_what_the_keras_model_gives_it(bundle: Bundle) -> None:
    capture = cv2.VideoCapture(str(face_clip()))
    ok, frame = capture.read()
    capture.release()
    assert ok
    face = cv2.cvtColor(cv2.resize(frame, (544, 448))[113:305, 177:369], cv2.COLOR_BGR2GRAY)
    declared = bundle.manifest.input
    tensor = (cv2.resize(face, declared.size) - np.array(declared.mean)) / np.array(declared.std)
    session = models.open_session(bundle, threads=1)
    (probabilities,) = session.run(None, {"input": tensor.astype(np.float32)[None, :, :, None]})
    found = dict(zip(bundle.labels, probabilities[0].tolist(), strict=True))
    expected = {"fear": 0.544, "neutral": 0.231, "sad": 0.094}
    assert {label: found[label] for label in expected} == pytest.approx(expected, abs=0.02)
