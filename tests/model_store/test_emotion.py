from pathlib import Path

import numpy as np

from edgeml import models
from model_store.emotion.build import build


def test_each_face_of_a_batch_gets_seven_probabilities(tmp_path: Path) -> None:
    build(tmp_path)
    bundle = models.load(tmp_path)
    session = models.open_session(bundle, threads=1)
    faces = np.random.default_rng(3).uniform(-1, 1, (4, 64, 64, 1)).astype(np.float32)
    (probabilities,) = session.run(None, {"input": faces})
    assert probabilities.shape == (4, len(bundle.labels))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)
    (single,) = session.run(None, {"input": faces[2:3]})
    np.testing.assert_allclose(single[0], probabilities[2], atol=1e-5)
