import math
import statistics

import pytest

from edgeml.edge_impulse.metrics import Metrics


def test_mean_and_deviation_are_those_of_all_confidences() -> None:
    values = [0.91, 0.12, 0.55, 0.99, 0.01, 0.5]
    metrics = Metrics()
    metrics.add(values[:2])
    metrics.add(values[2:])
    found = metrics.snapshot()
    assert found["mean_confidence"] == pytest.approx(statistics.fmean(values), abs=1e-6)
    assert found["standard_deviation"] == pytest.approx(statistics.pstdev(values), abs=1e-6)
    assert found["details"] == {
        "n": 6,
        "sum_confidences": pytest.approx(sum(values)),
        "sum_confidences_squared": pytest.approx(sum(value * value for value in values), abs=1e-6),
    }


def test_a_constant_confidence_has_no_trend_and_no_deviation() -> None:
    """Rounding of 0.91 summed up would turn both into noise, or the root of a negative number."""
    metrics = Metrics()
    for _ in range(1000):
        metrics.add([0.91])
        found = metrics.snapshot()
        assert (found["mean_confidence"], found["standard_deviation"]) == (0.91, pytest.approx(0, abs=1e-6))
        assert found["confidence_trend"] == "flat"


def test_the_trend_is_that_of_the_mean() -> None:
    metrics = Metrics()
    trends = []
    for value in (0.5, 0.9, 0.7, 0.2, 0.525):
        metrics.add([value])
        trends.append(metrics.snapshot()["confidence_trend"])
    assert trends == ["flat", "incr", "flat", "decr", "decr"]


def test_nothing_yet() -> None:
    found = Metrics().snapshot()
    assert (found["mean_confidence"], found["standard_deviation"], found["confidence_trend"]) == (0.0, 0.0, "flat")


def test_reset() -> None:
    metrics = Metrics()
    metrics.add([0.1, 0.9])
    metrics.reset()
    assert metrics.snapshot()["details"]["n"] == 0


def test_values_that_are_no_numbers_do_not_spoil_the_sums() -> None:
    metrics = Metrics()
    metrics.add([0.5, math.nan, math.inf])
    assert metrics.snapshot()["mean_confidence"] == 0.5
