"""How the device does, to AWS IoT Core: one small message now and then, and at once when a problem begins or ends."""

import math
import threading
import time
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from edgeml import messages
from edgeml.component import Context
from edgeml.errors import SpoolError
from edgeml.outbox import Outbox
from monitor.config import Config
from monitor.state import State

MAX_BYTES = 3900  # less than it may be: times grow when they are set right
MAX_TEXT, MAX_SUBJECT = 160, 80  # characters
LOOK_S = 2.0  # from a look at the problems to the next
AT_ONCE_S = 60.0  # between two reports because of problems
SPOOL_BYTES = 512 << 10  # a day of the largest reports
AGAIN_S = 30.0  # where the spool cannot be opened
TIMES = {"at": 1, "problems.since": 1}
DEPTHS = ("waiting", "waiting_bytes", "dropped", "quarantined")  # gauges of spools end so

Why = Literal["interval", "problem", "look"]


class Running(msgspec.Struct, frozen=True, omit_defaults=True):
    """`status` is running, waiting or silent."""

    version: str
    status: str


class Wrong(msgspec.Struct, frozen=True):
    """A problem of a component; `since` is Unix time in seconds."""

    component: str
    code: str
    subject: str
    text: str
    since: float


class Report(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a device says of itself on `edgeml/device/<thing>/report`; at most 4,000 bytes.

    `at` is Unix time in seconds, `why` it is said now. `problems`, the newest first, are all there are. `rates` are per
    second, but for those that are 0; `vitals` are by name, in the units that the Monitor's README says; `spools` are
    what waits, was dropped or refused. `left_out` says how many entries of which part there was no room for. `clock` is
    unsynchronised where the times are not to be relied on.
    """

    thing: str
    at: float
    version: str
    why: Why
    components: dict[str, Running] = {}
    problems: list[Wrong] = []
    spools: dict[str, float] = {}
    vitals: dict[str, float] = {}
    rates: dict[str, float] = {}
    left_out: dict[str, int] = {}
    clock: str = ""


# The least needed first.
PARTS = ("rates", "vitals", "spools", "components", "problems")


def made(state: State, why: Why) -> Report:
    """What is known now, however much that is."""
    device, reports = state.snapshot(), state.reports()
    running = {item.name: Running(item.version, item.status) for item in device.components}
    gauges = {f"{name}.{key}": value for name, report in reports.items() for key, value in report.gauges.items()}
    rates = {f"{name}.{key}": value for name, report in reports.items() for key, value in report.rates.items()}
    return Report(
        thing=device.thing[:128],
        at=round(device.time, 3),
        version=device.version,
        why=why,
        components={"edgeml.Monitor": Running(device.version, "running"), **running},
        problems=[
            Wrong(item.component, item.code, item.subject[:MAX_SUBJECT], item.text[:MAX_TEXT], round(item.since, 3))
            for item in reversed(device.attention)
        ],
        spools=_finite(gauges, lambda key, value: key.endswith(".waiting") or (_is_depth(key) and value != 0)),
        vitals=_finite({key: vital.value for key, vital in device.vitals.items()}, lambda key, value: True),
        rates=_finite(rates, lambda key, value: value != 0),
    )


def fitted(report: Report, limit: int = MAX_BYTES) -> bytes:
    """The message, of at most `limit` bytes: what it has no room for is left out, and that is said."""
    data = messages.encode(report)
    for part in PARTS:
        entries = getattr(report, part)
        items: list[Any] = list(entries.items()) if isinstance(entries, dict) else list(entries)
        keep = len(items)
        while keep and len(data) > limit:
            keep = keep * 3 // 4
            kept = dict(items[:keep]) if isinstance(entries, dict) else items[:keep]
            left_out = {**report.left_out, part: len(items) - keep}
            report = msgspec.structs.replace(report, **{part: kept, "left_out": left_out})
            data = messages.encode(report)
    return data


def _finite(values: Mapping[str, float], wanted: Callable[[str, float], bool]) -> dict[str, float]:
    found = {key: value for key, value in sorted(values.items()) if math.isfinite(value) and wanted(key, value)}
    return {key: float(f"{value:.6g}") for key, value in found.items()}


def _is_depth(key: str) -> bool:
    return key.rpartition(".")[2] in DEPTHS


class Reporter:
    """Sends reports until the component stops. What cannot be sent waits on disk."""

    def __init__(self, context: Context, state: State) -> None:
        self._context, self._state = context, state
        self._changed = threading.Event()
        self._every_s = 0.0
        self._outbox: Outbox | None = None

    def start(self, config: Config) -> None:
        self._every_s = config.report_s
        self._context.spawn("report", self._report_for_ever)

    def reconfigure(self, config: Config) -> None:
        if self._outbox is not None:
            self._outbox.configure(max_bytes=SPOOL_BYTES, qos=1)
        if config.report_s != self._every_s:
            self._every_s = config.report_s
            self._changed.set()

    def stop(self) -> None:
        self._changed.set()
        if self._outbox is not None:
            self._outbox.close()

    def _report_for_ever(self) -> None:
        while not self._context.stopping.is_set():
            self._changed.clear()
            if self._every_s <= 0:
                self._changed.wait()
                continue
            try:
                self._reports(self._every_s)
            except SpoolError as error:
                self._context.health.error(error)
                self._changed.wait(AGAIN_S)

    def _reports(self, every_s: float) -> None:
        """Until something changes. Raises SpoolError."""
        if self._outbox is None:
            path, context = self._context.work / "reports.spool", self._context
            self._outbox = Outbox(path, context.ipc, context.health, max_bytes=SPOOL_BYTES, times=TIMES)
        due = Due(self._context.thing_name, every_s, time.monotonic())
        while not self._changed.wait(LOOK_S):
            told = frozenset((item.component, item.code, item.subject) for item in self._state.attention())
            why = due.why(told, time.monotonic())
            if why is not None:
                message = fitted(made(self._state, why))
                self._outbox.put(messages.device_report(self._context.thing_name), message)
                self._context.health.count("reports.put")


class Due:
    """When to report: each device of a fleet at another time. Times are monotonic, in seconds."""

    def __init__(self, thing: str, every_s: float, now: float) -> None:
        self._every_s = every_s
        self._next = now + every_s * zlib.crc32(thing.encode(errors="replace")) / 2**32
        self._told: frozenset[Any] = frozenset()
        self._at_once = -math.inf  # when that was last

    def why(self, problems: frozenset[Any], now: float) -> Why | None:
        """Why to report now, with these `problems`; None: not now."""
        if now >= self._next:
            self._next += self._every_s * math.ceil((now - self._next + 1e-9) / self._every_s)
            self._told = problems
            return "interval"
        if problems != self._told and now >= self._at_once + AT_ONCE_S:
            self._told, self._at_once = problems, now
            return "problem"
        return None
