"""What the components said of themselves last: their reports on `edgeml/health/+`."""

import math
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


@dataclass
class _Told:
    report: HealthReport
    at: float
    history: dict[str, deque[float]] = field(default_factory=dict)


class Reports:
    """Reports by component, without `edgeml.`; for who holds a lock. `clock` is monotonic."""

    def __init__(self, own: Callable[[], Sequence[Problem]], clock: Callable[[], float]) -> None:
        self._own, self._clock = own, clock
        self._told: dict[str, _Told] = {}

    def take(self, name: str, payload: bytes) -> bool:
        """Keep a report; whether it was one. The topic says whose it is, whatever the report says."""
        if name == "Monitor":  # not every core sends a component what it said itself
            return True
        if len(payload) > MAX_REPORT_BYTES or not 0 < len(name) <= MAX_NAME:
            return False
        try:
            report = messages.decode(payload, HealthReport)
        except msgspec.MsgspecError:
            return False
        self._forget()
        known = self._told.get(name)
        if known is None and len(self._told) >= MAX_COMPONENTS:
            return False
        rates = {key: value for key, value in sorted(report.rates.items())[:MAX_RATES] if math.isfinite(value)}
        history = known.history if known else {}
        kept = {key: history.get(key) or deque(maxlen=HISTORY) for key in rates}
        for key, value in rates.items():
            kept[key].append(value)
        self._told[name] = _Told(report, self._clock(), kept)
        return True

    def report(self, name: str) -> HealthReport | None:
        """The last report of a component that is not silent; what it says may be anything but too large."""
        told = self._told.get(name)
        return told.report if told is not None and self._clock() - told.at <= SILENT_S else None

    def reports(self) -> dict[str, HealthReport]:
        """As `report`, of all of them."""
        return {name: report for name in self._told if (report := self.report(name)) is not None}

    def attention(self) -> list[Attention]:
        """All problems, the oldest first, those of a component that says nothing any more as one."""
        found = [_attention("edgeml.Monitor", problem) for problem in self._own()]
        self._forget()
        now, offset = self._clock(), time.time() - self._clock()
        for name, told in self._told.items():
            if now - told.at > SILENT_S:
                text = f"has said nothing for {SILENT_S:g} s"
                found.append(Attention(f"edgeml.{name}", "silent", name, text, told.at + offset, SILENT))
            else:
                found += [_attention(f"edgeml.{name}", item) for item in told.report.problems[:MAX_PROBLEMS]]
        return sorted(found, key=lambda item: item.since)

    def components(self) -> list[ComponentState]:
        return [self._component(name, told) for name, told in sorted(self._told.items())]

    def _component(self, name: str, told: _Told) -> ComponentState:
        age = self._clock() - told.at
        waiting = "; ".join(told.report.notes.values())[:300]
        return ComponentState(
            name=f"edgeml.{name}",
            version=told.report.version[:MAX_NAME],
            status="silent" if age > SILENT_S else "waiting" if waiting else "running",
            waiting_for=waiting,
            rates={key: values[-1] for key, values in told.history.items()},
            history={key: list(values) for key, values in told.history.items()},
            seen=time.time() - age,
        )

    def _forget(self) -> None:
        now = self._clock()
        for name in [name for name, told in self._told.items() if now - told.at > FORGOTTEN_S]:
            del self._told[name]


def _attention(component: str, problem: Problem) -> Attention:
    since = problem.since if math.isfinite(problem.since) else 0.0
    advice = ADVICE.get(problem.code, "")
    return Attention(component, problem.code[:MAX_NAME], problem.subject[:300], problem.text[:300], since, advice)
