"""What a component says about itself at its start and every ten seconds on `edgeml/health/<component>`."""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable

from edgeml import redact
from edgeml.log import kv
from edgeml.messages import HealthReport, Percentiles, Privacy
from edgeml.problems import Problems

log = logging.getLogger(__name__)

SAMPLES = 1024  # latencies kept for the percentiles: the most recent ones
MAX_ERROR, MAX_NOTE = 500, 200  # characters
MAX_PROBLEMS = 10  # in a report, the oldest first: it must fit one message


class Health:
    """Counters, latencies and gauges of one process; thread-safe.

    Counters only grow; rates are counter increments per second since the report before. Gauges are functions,
    asked when a report is made. Latencies are given in seconds and reported in milliseconds.
    """

    def __init__(self, component: str, version: str) -> None:
        self._component, self._version = component, version
        self.problems = Problems()
        self.privacy: tuple[Privacy, ...] = ()  # of whose pictures what is to be hidden
        self._lock = threading.Lock()
        self._counters: dict[str, int] = {}
        self._reported: dict[str, int] = {}
        self._latencies: dict[str, deque[float]] = {}
        self._gauges: dict[str, Callable[[], float]] = {}
        self._failed_gauges: set[str] = set()
        self._notes: dict[str, str] = {}
        self._last_error: str | None = None
        self._started = self._reported_at = time.monotonic()

    def count(self, name: str, amount: int = 1) -> None:
        with self._lock:
            self._counters[name] = self._counters.get(name, 0) + amount

    def observe(self, name: str, seconds: float) -> None:
        with self._lock:
            self._latencies.setdefault(name, deque(maxlen=SAMPLES)).append(seconds)

    def gauge(self, name: str, probe: Callable[[], float]) -> None:
        with self._lock:
            self._gauges[name] = probe

    def note(self, name: str, text: str) -> None:
        """Say what state a part is in (`waiting for model FaceDetector`); an empty text takes the note back."""
        with self._lock:
            if text:
                self._notes[name] = redact.text(text)[:MAX_NOTE]
            else:
                self._notes.pop(name, None)

    def error(self, error: BaseException | str) -> None:
        with self._lock:
            self._last_error = redact.text(str(error))[:MAX_ERROR]

    def forget(self, prefix: str) -> None:
        """Drop gauges, notes and problems of a part that is gone: those named `prefix` or `prefix.` and more."""
        self.problems.forget(prefix)
        with self._lock:
            for table in (self._gauges, self._notes):
                for name in [name for name in table if f"{name}.".startswith(f"{prefix}.")]:
                    del table[name]

    def counter(self, name: str) -> int:
        with self._lock:
            return self._counters.get(name, 0)

    def report(self) -> HealthReport:
        """The state now; rates are since the report before."""
        with self._lock:
            now = time.monotonic()
            elapsed = max(now - self._reported_at, 1e-3)
            gauges = dict(self._gauges)
            counters = dict(self._counters)
            rates = {
                name: round((value - self._reported.get(name, 0)) / elapsed, 2) for name, value in counters.items()
            }
            self._reported, self._reported_at = counters, now
            latencies = {name: _percentiles(values) for name, values in self._latencies.items()}
            notes, last_error, uptime = dict(self._notes), self._last_error, now - self._started
        # Gauges may take locks of their own, so they are asked with ours released.
        return HealthReport(
            component=self._component,
            version=self._version,
            at=time.time(),
            uptime_s=round(uptime, 1),
            counters=counters,
            rates=rates,
            latency_ms=latencies,
            gauges=self._asked(gauges),
            notes=notes,
            last_error=last_error,
            problems=self.problems.current()[:MAX_PROBLEMS],
            privacy=self.privacy,
        )

    def _asked(self, gauges: dict[str, Callable[[], float]]) -> dict[str, float]:
        """A gauge that fails, or that gives what JSON has no number for, is left out: the others are worth having."""
        found = {}
        for name, probe in gauges.items():
            try:
                value = float(probe())
            except Exception as error:
                self.count("gauges.failed")
                if name not in self._failed_gauges:
                    self._failed_gauges.add(name)
                    log.exception("gauge failed %s", kv(gauge=name, error=repr(error)))
                continue
            if math.isfinite(value):
                found[name] = value
        return found


def _percentiles(values: deque[float]) -> Percentiles:
    ordered = sorted(values)
    return Percentiles(
        p50=round(ordered[len(ordered) // 2] * 1000, 3),
        p99=round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000, 3),
    )
