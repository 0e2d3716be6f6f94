"""Rows of `scripts/bench`: each figure beside the limit it is measured against, in one interleaved run."""

import statistics
from collections.abc import Callable

import msgspec


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the benchmark table. `ratio` is value / limit; `bar` says in words what `ok` demands."""

    bench: str
    metric: str
    unit: str
    value: float
    limit: float | None
    ratio: float | None
    bar: str
    ok: bool


def interleave(contestants: dict[str, Callable[[], float]], rounds: int = 5) -> dict[str, float]:
    """Median of each contestant's figure, all of them run once a round, so that a busy machine hits them alike."""
    figures: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, contestant in contestants.items():
            figures[name].append(contestant())
    return {name: statistics.median(values) for name, values in figures.items()}


def percentile(values: list[float], percent: float) -> float:
    """Nearest-rank percentile of a non-empty list."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]
