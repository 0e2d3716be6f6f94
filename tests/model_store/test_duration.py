"""The committed model on interactions it has not seen."""

import itertools

import numpy as np

from edgeml import models
from localdev.simulators.interaction import FEATURES, SPREAD, TARGET, interactions
from model_store.duration.build import HERE


def test_durations_are_predicted_nearly_as_well_as_chance_allows() -> None:
    bundle = models.load(HERE)
    assert bundle.manifest.output.parameters == {"features": list(FEATURES), "target": TARGET}
    unseen = np.array(list(itertools.islice(interactions(99), 2000)))
    rows, durations = unseen[:, :-1].astype(np.float32), unseen[:, -1]
    (predicted,) = models.open_session(bundle, threads=1).run(None, {"features": rows})
    error = np.sqrt(np.mean((predicted[:, 0] - durations) ** 2))
    unavoidable = SPREAD * np.sqrt(np.mean(durations**2))
    assert error < 1.6 * unavoidable
    assert error < 0.2 * durations.std()


def test_one_row_gives_what_it_gives_in_a_batch() -> None:
    session = models.open_session(models.load(HERE), threads=1)
    rows = np.array(list(itertools.islice(interactions(3), 10)), np.float32)[:, :-1]
    (batch,) = session.run(None, {"features": rows})
    for row, expected in zip(rows, batch, strict=True):
        (single,) = session.run(None, {"features": row[None]})
        np.testing.assert_allclose(single[0], expected, rtol=1e-6)
