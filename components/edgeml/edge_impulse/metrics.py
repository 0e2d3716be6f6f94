"""Running statistics of the confidences, as published on `.../model/metrics`."""

import math
import threading
import time
import uuid
from collections.abc import Iterable
from typing import Any

DIGITS = 6


class Metrics:
    """Mean, population standard deviation and trend of all confidences since the start; thread-safe.

    The trend compares the mean with the one before the latest confidence, in the digits that are published, so that
    rounding cannot turn a constant confidence into a trend.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        with self._lock:
            self._n, self._sum, self._squares, self._trend = 0, 0.0, 0.0, "flat"

    def add(self, confidences: Iterable[float]) -> None:
        """Values that are not finite are passed over: one of them would spoil the sums for ever."""
        with self._lock:
            for value in filter(math.isfinite, confidences):
                before = self._mean() if self._n else None
                self._n += 1
                self._sum += value
                self._squares += value * value
                self._trend = self._direction(before)

    def snapshot(self) -> dict[str, Any]:
        """The message as JSON-ready data."""
        with self._lock:
            mean = self._mean()
            variance = self._squares / self._n - mean * mean if self._n else 0.0
            return {
                "mean_confidence": round(mean, DIGITS),
                "standard_deviation": round(math.sqrt(max(0.0, variance)), DIGITS),
                "confidence_trend": self._trend,
                "details": {
                    "n": self._n,
                    "sum_confidences": round(self._sum, DIGITS),
                    "sum_confidences_squared": round(self._squares, DIGITS),
                },
                "ts": int(time.time() * 1000),
                "id": str(uuid.uuid4()),
            }

    def _mean(self) -> float:
        return self._sum / self._n if self._n else 0.0

    def _direction(self, before: float | None) -> str:
        if before is None:
            return "flat"
        change = round(self._mean(), DIGITS) - round(before, DIGITS)
        return "incr" if change > 0 else "decr" if change < 0 else "flat"
