"""What the components said of themselves last: STATE of /api/state. Bounded, for anybody may publish on the core."""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from edgeml import messages
from edgeml.messages import HealthReport, Problem
from edgeml.problems import ADVICE

MAX_REPORT_BYTES = 16384
MAX_COMPONENTS, MAX_NAME, MAX_RATES, MAX_PROBLEMS = 64, 128, 32, 20
HISTORY = 60  # values of each rate
SILENT_S, FORGOTTEN_S = 35.0, 600.0  # without a report, which comes every 10 s
SILENT = "Look at its state and its log; the core starts it again. One that was removed is forgotten after ten minutes."


class Attention(msgspec.Struct, frozen=True):
    """A problem of a component. `since` is Unix time in seconds, `advice` what to do."""

    component: str
    code: str
    subject: str
    text: str
    since: float
    advice: str


class ComponentState(msgspec.Struct, frozen=True):
    """`rates` are per second, `history` their last 60 values; `seen` is Unix time in seconds."""

    name: str
    version: str
    status: str
    waiting_for: str
    rates: dict[str, float]
    history: dict[str, list[float]]
    seen: float


class DeviceState(msgspec.Struct, frozen=True):
    thing: str
    time: float
    version: str
    attention: list[Attention]
    components: list[ComponentState]


@dataclass
class _Told:
    report: HealthReport
    at: float
    history: dict[str, deque[float]] = field(default_factory=dict)


class State:
    """Reports by component; thread-safe. `own` are the Monitor's problems, `clock` is monotonic."""

    def __init__(
        self,
        thing: str,
        version: str,
        own: Callable[[], Sequence[Problem]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._thing, self._version, self._own, self._clock = thing, version, own, clock
        self._lock = threading.Lock()
        self._told: dict[str, _Told] = {}

    def heard(self, topic: str, payload: bytes) -> bool:
        """Take a report; whether it was one. The topic says whose it is, whatever the report says."""
        name = topic.rpartition("/")[2]
        if name == "Monitor":  # not every core sends a component what it said itself
            return True
        if len(payload) > MAX_REPORT_BYTES or not 0 < len(name) <= MAX_NAME:
            return False
        try:
            report = messages.decode(payload, HealthReport)
        except msgspec.MsgspecError:
            return False
        with self._lock:
            return self._take(name, report)

    def _take(self, name: str, report: HealthReport) -> bool:
        self._forget()
        known = self._told.get(name)
        if known is None and len(self._told) >= MAX_COMPONENTS:
            return False
        rates = {key: value for key, value in sorted(report.rates.items())[:MAX_RATES] if math.isfinite(value)}
        history = known.history if known else {}
        kept = {key: history.get(key) or deque(maxlen=HISTORY) for key in rates}
        for key, value in rates.items():
            kept[key].append(value)
        # Counters, latencies and gauges are not shown, so not kept.
        report = msgspec.structs.replace(report, rates=rates, counters={}, latency_ms={}, gauges={}, last_error=None)
        self._told[name] = _Told(report, self._clock(), kept)
        return True

    def _forget(self) -> None:
        now = self._clock()
        for name in [name for name, told in self._told.items() if now - told.at > FORGOTTEN_S]:
            del self._told[name]

    def attention(self) -> list[Attention]:
        """All problems, the oldest first, those of a component that says nothing any more as one."""
        found = [_attention("edgeml.Monitor", problem) for problem in self._own()]
        with self._lock:
            self._forget()
            now, offset = self._clock(), time.time() - self._clock()
            for name, told in self._told.items():
                if now - told.at > SILENT_S:
                    text = f"has said nothing for {SILENT_S:g} s"
                    found.append(Attention(f"edgeml.{name}", "silent", name, text, told.at + offset, SILENT))
                else:
                    found += [_attention(f"edgeml.{name}", item) for item in told.report.problems[:MAX_PROBLEMS]]
        return sorted(found, key=lambda item: item.since)

    def snapshot(self) -> DeviceState:
        attention = self.attention()
        with self._lock:
            components = [self._component(name, told) for name, told in sorted(self._told.items())]
        return DeviceState(self._thing, time.time(), self._version, attention, components)

    def _component(self, name: str, told: _Told) -> ComponentState:
        age = self._clock() - told.at
        waiting = "; ".join(told.report.notes.values())[:300]
        return ComponentState(
            name=f"edgeml.{name}",
            version=told.report.version[:MAX_NAME],
            status="silent" if age > SILENT_S else "waiting" if waiting else "running",
            waiting_for=waiting,
            rates=told.report.rates,
            history={key: list(values) for key, values in told.history.items()},
            seen=time.time() - age,
        )


def _attention(component: str, problem: Problem) -> Attention:
    since = problem.since if math.isfinite(problem.since) else 0.0
    advice = ADVICE.get(problem.code, "")
    return Attention(component, problem.code[:MAX_NAME], problem.subject[:300], problem.text[:300], since, advice)
