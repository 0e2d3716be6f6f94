"""The soak's own rules: who is ended when, and what it takes for growth, for health and for a flow."""

import itertools
import json
import time
from collections import Counter

import pytest

from soak_growth import flatness
from soak_support import (
    EVERY_S,
    KILLS,
    LITE_ENDINGS,
    MEBIBYTE,
    PROCESSES,
    Heard,
    Sample,
    plan,
)


@pytest.mark.parametrize("profile", ["java", "lite"])
@pytest.mark.parametrize("seconds", [20.0, 90.0, 600.0, 3600.0])
def test_who_is_ended_when(profile: str, seconds: float) -> None:
    """Nobody more often than the core bears, nobody twice at once, everybody in both ways where there is time."""
    names = list(PROCESSES.values())
    endings = plan(names, seconds, EVERY_S, profile)
    times = [ending.at for ending in endings]
    assert all(later - earlier >= EVERY_S for earlier, later in itertools.pairwise([0.0, *times]))
    assert times[-1] <= seconds
    killed = Counter(ending.component for ending in endings if ending.killed)
    assert max(killed.values(), default=0) <= KILLS
    if profile == "lite":
        assert max(Counter(ending.component for ending in endings).values()) <= LITE_ENDINGS
    if seconds >= 600:
        assert set(killed) == set(names) == {ending.component for ending in endings if not ending.killed}


def grown(rss: float = 0.0, descriptors: float = 0.0, age: bool = False) -> dict[str, list[Sample]]:
    """Samples of 600 s, of a process ended every 80 s: it grows by so much per second of the soak, or of its life."""
    samples = []
    for second in range(600):
        since = second % 80 if age else second
        size = 50 * MEBIBYTE + int(rss * since)
        samples.append(Sample(second, second // 80, second % 80, size, 20 + int(descriptors * since)))
    return {"edgeml.Inferencer": samples}


@pytest.mark.parametrize(
    ("samples", "bounded"),
    [
        pytest.param(grown(), True, id="steady"),
        pytest.param(grown(rss=20_000), False, id="from-life-to-life"),
        pytest.param(grown(rss=120_000, age=True), False, id="within-a-life"),
        pytest.param(grown(descriptors=0.02), False, id="descriptors"),
        pytest.param(grown(descriptors=0.1, age=True), False, id="descriptors-within-a-life"),
        pytest.param({"core": [Sample(s, 1, s, (30 << 20) + 20_000 * s, 40) for s in range(600)]}, False, id="core"),
    ],
)
def test_what_grows_is_seen(samples: dict[str, list[Sample]], bounded: bool) -> None:
    assert (flatness(samples, 600.0) == []) is bounded


def test_health_of_the_process_before_does_not_count() -> None:
    heard = Heard()
    assert not heard.has_said("edgeml.X", 0.0)
    heard.local("edgeml/health/X", json.dumps({"component": "edgeml.X", "at": 100.0, "uptime_s": 40.0}).encode())
    assert heard.has_said("edgeml.X", 60.0)
    assert not heard.has_said("edgeml.X", 61.0)


def test_what_came_before_does_not_flow() -> None:
    heard = Heard()
    heard.local("edgeml/inference/x", b"{}")
    heard.local("edgeml/inference/x", b"{}")
    assert heard.flows("edgeml/inference/x", 0.0)
    assert not heard.flows("edgeml/inference/x", time.monotonic())
    heard.local("edgeml/echo/X", b"")
    assert not heard.flows("edgeml/echo/X", 0.0)
