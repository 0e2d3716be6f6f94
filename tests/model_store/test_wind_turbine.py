"""The committed model on readings it has not seen: silent while the turbine is healthy, prompt when it is not."""

import itertools

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest

from edgeml import models
from edgeml.bundle import Bundle
from edgeml.turbine import FEATURES, RING, Statistics, TurbineFeatures, errors
from localdev.simulators.turbine import Fault, readings
from model_store.wind_turbine.build import HERE

Verdicts = npt.NDArray[np.bool_]

EVERY = 20  # readings between two verdicts: one second of the turbine's time
FAULT_AFTER = 1000


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return models.load(HERE)


@pytest.fixture(scope="module")
def session(bundle: Bundle) -> ort.InferenceSession:
    return models.open_session(bundle, threads=1)


def verdicts(bundle: Bundle, session: ort.InferenceSession, count: int, seed: int, fault: Fault) -> Verdicts:
    """After every second of `count` readings, the ring once full: which features are anomalous, [verdicts, 6]."""
    features = TurbineFeatures(Statistics.of(bundle))
    found = []
    for index, reading in enumerate(itertools.islice(readings(seed, fault, FAULT_AFTER), count), start=1):
        features.push(reading)
        if features.ready and index % EVERY == 0:
            windows = features.windows()
            (reconstruction,) = session.run(None, {"input": windows})
            found.append(errors(windows, reconstruction) > bundle.manifest.thresholds["mae"])
    return np.array(found)


@pytest.mark.parametrize("seed", [11, 12, 13])
def test_a_healthy_turbine_is_never_flagged(bundle: Bundle, session: ort.InferenceSession, seed: int) -> None:
    assert not verdicts(bundle, session, 20_000, seed, Fault.NONE).any()


@pytest.mark.parametrize(
    ("fault", "feature", "seconds"),
    [
        (Fault.VOLTAGE_DROP, "voltage", 10),
        (Fault.ROTOR_IMBALANCE, "roll", 20),
        (Fault.YAW_MISALIGNMENT, "wind_rps", 20),
    ],
)
@pytest.mark.parametrize("seed", [20, 21, 22])  # 20 and 22 begin in little wind, when a fault hardly shows
def test_a_fault_is_flagged_within_seconds_on_the_signal_that_is_wrong(
    bundle: Bundle, session: ort.InferenceSession, fault: Fault, feature: str, seconds: int, seed: int
) -> None:
    flagged = verdicts(bundle, session, 2000, seed, fault)
    before = (FAULT_AFTER - RING) // EVERY + 1
    assert not flagged[:before].any()
    first = int(np.argmax(flagged.any(axis=1)))
    assert 0 < first - before + 1 <= seconds
    assert flagged[before:, FEATURES.index(feature)].mean() > 0.4


def test_the_bundle_declares_its_features_and_where_it_comes_from(bundle: Bundle) -> None:
    assert bundle.labels == FEATURES
    assert "train_autoencoder.py" in bundle.manifest.source
