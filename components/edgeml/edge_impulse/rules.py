"""Which results are published: the confidence threshold, and each Nth of those that meet it."""

import operator
from collections.abc import Callable
from typing import Any

from edgeml.edge_impulse.parameters import Criterion

_COMPARE: dict[Criterion, Callable[[float, float], bool]] = {
    "gt": operator.gt,
    "ge": operator.ge,
    "eq": operator.eq,
    "le": operator.le,
    "lt": operator.lt,
}


class ThresholdFilter:
    """Passes results whose mean confidence meets `criterion threshold`, and those that have no confidence."""

    def __init__(self, *, enabled: bool, threshold: float, criterion: Criterion) -> None:
        self.enabled, self.threshold, self.criterion = enabled, threshold, criterion

    def passes(self, confidence: float | None) -> bool:
        return not self.enabled or confidence is None or _COMPARE[self.criterion](confidence, self.threshold)

    def config(self) -> dict[str, Any]:
        """As the commands report it."""
        return {
            "enabled": "yes" if self.enabled else "no",
            "confidence_threshold": self.threshold,
            "threshold_criteria": self.criterion,
        }


class Backoff:
    """Lets each `every`th call through."""

    def __init__(self, every: int) -> None:
        self._every, self._seen = every, 0

    def due(self) -> bool:
        self._seen = (self._seen + 1) % self._every
        return self._seen == 0
