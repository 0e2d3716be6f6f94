"""The feature pipeline beside a plain computation, number by number."""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import pywt

from edgeml.errors import BackendError, BundleError
from edgeml.turbine import FIELDS, RING, Statistics, TurbineFeatures, errors, euler

Array = npt.NDArray[np.float64]

STATISTICS = Statistics(
    mean=np.array([-0.008, 0.0012, -0.1068, 2.154, 1.6106, 47.7938]),
    std=np.array([0.0075, 0.0043, 0.4814, 0.3543, 0.4695, 15.9432]),
    raw_std=np.array([0.0164, 0.0163, 1.8099, 0.3906, 0.6198, 26.3817]),
)


def readings(count: int, seed: int = 5) -> Array:
    """Random readings [count, 20] with unit quaternions and steps that survive the denoising."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 1, (count, FIELDS)) + np.sin(np.arange(count) / 20)[:, None]
    values[:, 5:9] /= np.linalg.norm(values[:, 5:9], axis=1, keepdims=True)
    values[:, 2:5] = (
        np.abs(values[:, 2:5]) * [1.6, 2.2, 48] + np.repeat([0, 5], [count // 2, count - count // 2])[:, None]
    )
    return values


def reference(history: Array) -> Array:
    """The windows of the last 500 rows of `history`, step by step, one feature after the other."""
    columns = []
    for row in history[-500:]:
        x, y, z, w = row[[6, 7, 8, 5]]
        roll = math.atan2(2 * (w * x + y * z), 1 - 2 * (x**2 + y**2))
        pitch = math.asin(max(-1, min(1, 2 * (w * y - z * x))))
        yaw = math.atan2(2 * (w * z + x * y), 1 - 2 * (y**2 + z**2))
        columns.append([roll, pitch, yaw, row[3], row[2], row[4]])
    features = np.array(columns)
    for feature in range(6):
        signal = features[:, feature]
        threshold = STATISTICS.raw_std[feature] * np.sqrt(2 * np.log2(signal.size))
        levels = pywt.wavedec(signal, "db6", level=min(5, int(np.log2(signal.size))))
        levels = [pywt.threshold(level, threshold, mode="soft") for level in levels]
        features[:, feature] = pywt.waverec(levels, "db6")
    features = ((features - STATISTICS.mean) / STATISTICS.std)[-110:]
    windows = [features[start : start + 100] for start in (0, 10)]
    return np.array([[window[:, feature].reshape(10, 10) for feature in range(6)] for window in windows])


@pytest.mark.parametrize("count", [RING, RING + 1, 2 * RING - 1, 1234])
def test_windows_equal_a_plain_computation_wherever_the_ring_stands(count: int) -> None:
    history = readings(count)
    features = TurbineFeatures(STATISTICS)
    for row in history:
        features.push(row.tolist())
    windows = features.windows()
    assert windows.dtype == np.float32
    assert windows.shape == (2, 6, 10, 10)
    expected = reference(history)
    assert np.abs(expected).max() > 3  # the signals survived: this is no comparison of zeros
    np.testing.assert_allclose(windows, expected, atol=1e-5)


def test_there_are_no_windows_before_the_ring_is_full() -> None:
    features = TurbineFeatures(STATISTICS)
    for row in readings(RING - 1):
        features.push(row.tolist())
    states = [(features.ready, features.windows().shape)]
    features.push(readings(1)[0].tolist())
    states.append((features.ready, features.windows().shape))
    assert states == [(False, (0, 6, 10, 10)), (True, (2, 6, 10, 10))]


def test_text_fields_are_read_and_those_not_in_use_may_hold_anything() -> None:
    numbers, text = TurbineFeatures(STATISTICS), TurbineFeatures(STATISTICS)
    for row in readings(RING):
        numbers.push(row.tolist())
        text.push(["2026-11-21T04:00:00Z", *f" {','.join(map(repr, row[1:].tolist()))}\n".split(",")])
    np.testing.assert_array_equal(numbers.windows(), text.windows())


@pytest.mark.parametrize(
    ("reading", "reason"),
    [
        (["1"] * 19, "has 20 fields, got 19"),
        (["1"] * 21, "has 20 fields, got 21"),
        (["1"] * 4 + ["high"] + ["1"] * 15, "must be numbers: .*'high'"),
        (["1"] * 8 + [""] + ["1"] * 11, "must be numbers"),
        (["1"] * 3 + ["nan"] + ["1"] * 16, "must be finite"),
        (["1"] * 2 + ["inf"] + ["1"] * 17, "must be finite"),
        (["1"] * 4 + ["1e300"] + ["1"] * 15, "at most 1e.09"),
        (["1"] * 4 + [10**400] + ["1"] * 15, "must be numbers"),
        (["1"] * 4 + ["1_0"] + ["1"] * 15, "must be numbers"),
    ],
)
def test_a_malformed_reading_is_refused_and_leaves_no_trace(reading: list[str], reason: str) -> None:
    features = TurbineFeatures(STATISTICS)
    for row in readings(RING):
        features.push(row.tolist())
    before = features.windows()
    with pytest.raises(BackendError, match=reason):
        features.push(reading)
    np.testing.assert_array_equal(features.windows(), before)


@pytest.mark.parametrize("angles", [(0.0, 0.0, 0.0), (0.3, -0.2, 2.9), (-1.5, 1.2, -3.0), (0.0, math.pi / 2, 0.0)])
def test_euler_angles_come_back_from_their_quaternion(angles: tuple[float, float, float]) -> None:
    (cr, sr), (cp, sp), (cy, sy) = ((math.cos(a / 2), math.sin(a / 2)) for a in angles)
    x, y, z = sr * cp * cy - cr * sp * sy, cr * sp * cy + sr * cp * sy, cr * cp * sy - sr * sp * cy
    assert euler(x, y, z, cr * cp * cy + sr * sp * sy) == pytest.approx(angles, abs=1e-7)


def test_a_quaternion_a_little_longer_than_one_is_no_error() -> None:
    assert euler(0.0, 0.75, 0.0, 0.75)[1] == math.pi / 2


def test_another_models_statistics_take_over_without_losing_the_ring() -> None:
    features = TurbineFeatures(STATISTICS)
    for row in readings(RING):
        features.push(row.tolist())
    before = features.windows()
    features.statistics = Statistics(STATISTICS.mean, STATISTICS.std * 2, STATISTICS.raw_std)
    np.testing.assert_allclose(features.windows(), before / 2, rtol=1e-6)


def test_errors_are_means_per_feature_over_all_windows() -> None:
    windows = np.zeros((2, 6, 10, 10), np.float32)
    reconstruction = windows.copy()
    reconstruction[0, 3] = -1
    reconstruction[1, 5, 0, 0] = 100
    assert errors(windows, reconstruction).tolist() == [0, 0, 0, 0.5, 0, 0.5]


@pytest.mark.parametrize(
    ("name", "values"), [("mean", [0.0] * 5), ("raw_std", [math.nan] * 6), ("std", [1.0] * 5 + [0.0])]
)
def test_statistics_that_cannot_be_right_are_refused(name: str, values: list[float], tmp_path: Path) -> None:
    good = {"mean": np.zeros(6), "std": np.ones(6), "raw_std": np.ones(6)}
    with pytest.raises(BundleError, match=name):
        Statistics(**(good | {name: np.array(values)}))
