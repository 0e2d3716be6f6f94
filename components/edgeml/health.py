"""What a component says about itself at its start and every ten seconds on `edgeml/health/<component>`."""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable

import msgspec

from edgeml import messages, redact
from edgeml.errors import EdgemlError
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
        self._variants: dict[str, str] = {}
        self._last_error: str | None = None
        self._started = self._reported_at = time.monotonic()

    def count(self, name: str, amount: int = 1) -> None:
        with self._lock:
            self._counters[name] = self._counters.get(name, 0) + amount

    def observe(self, name: str, seconds: float) -> None:
        with self._lock:
            kept = self._latencies.get(name)
            if kept is None:
                kept = self._latencies[name] = deque(maxlen=SAMPLES)
            kept.append(seconds)

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

    def variant(self, name: str, text: str) -> None:
        """Say which variant of a model a part runs, and why; an empty text takes it back."""
        with self._lock:
            self._variants.pop(name, None)
            if text:
                self._variants[name] = redact.text(text)[:MAX_NOTE]

    def error(self, error: BaseException | str) -> None:
        with self._lock:
            self._last_error = redact.text(str(error))[:MAX_ERROR]

    def scope(self, subject: str) -> "Scope":
        """What a part says about itself, under names that begin with `subject.`."""
        return Scope(self, subject)

    def forget(self, prefix: str) -> None:
        """Drop gauges, notes and problems of a part that is gone: those named `prefix` or `prefix.` and more."""
        self.problems.forget(prefix)
        with self._lock:
            for table in (self._gauges, self._notes, self._variants):
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
            variants = dict(self._variants) or msgspec.UNSET
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
            variants=variants,
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


class Scope:
    """One part's share of a Health: `subject` is what notes and problems are about, names stand below it."""

    def __init__(self, health: Health, subject: str) -> None:
        self.subject, self._health, self._failing = subject, health, ""

    def scope(self, name: str) -> "Scope":
        return Scope(self._health, f"{self.subject}.{name}")

    def count(self, name: str, amount: int = 1) -> None:
        self._health.count(f"{self.subject}.{name}", amount)

    def observe(self, name: str, seconds: float) -> None:
        self._health.observe(f"{self.subject}.{name}", seconds)

    def gauge(self, name: str, probe: Callable[[], float]) -> None:
        self._health.gauge(f"{self.subject}.{name}", probe)

    def note(self, text: str) -> None:
        self._health.note(self.subject, text)

    def variant(self, text: str) -> None:
        self._health.variant(self.subject, text)

    def error(self, error: BaseException | str) -> None:
        self._health.error(error)

    def found(self, code: str, text: str) -> None:
        self._health.problems.found(code, self.subject, text)

    def cleared(self, code: str) -> None:
        self._health.problems.cleared(code, self.subject)

    def failed(self, error: Exception, otherwise: str = "worker_failed") -> None:
        """Tell of `error`, a problem of the code that its class has, else `otherwise`, until another or `well`."""
        code = (error.code if isinstance(error, EdgemlError) else "") or otherwise
        if code != self._failing:
            self.well()
        self._failing = code
        self._health.error(error)
        self.found(code, str(error) or type(error).__name__)

    def well(self) -> None:
        """What `failed` told is over."""
        if self._failing:
            self.cleared(self._failing)
            self._failing = ""

    def forget(self) -> None:
        """The part is gone."""
        self._health.forget(self.subject)


def _percentiles(values: deque[float]) -> Percentiles:
    ordered = sorted(values)
    return Percentiles(
        p50=round(ordered[len(ordered) // 2] * 1000, 3),
        p99=round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000, 3),
    )


def fitted(report: HealthReport) -> bytes:
    """The report as one message. Of many cameras or pipelines: better without its finer points than not at all."""
    data = messages.encode(report)
    for part in ("rates", "latency_ms", "variants", "gauges", "counters", "notes"):
        if len(data) > messages.MAX_IPC_BYTES:
            report = msgspec.structs.replace(report, **{part: {}})
            data = messages.encode(report)
    if len(data) > messages.MAX_IPC_BYTES:
        report = msgspec.structs.replace(report, problems=report.problems[:1])
        data = messages.encode(report)
    if len(data) > messages.MAX_IPC_BYTES:
        bare = tuple(msgspec.structs.replace(each, labels=()) for each in report.privacy)
        data = messages.encode(msgspec.structs.replace(report, privacy=bare))
    return data
