"""What it costs the Monitor to look at its device, beside psutil reading as much, and to tell it to Prometheus."""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from benchmarks.harness import Row, interleave
from edgeml.component import Context
from edgeml.health import Health
from ipc_support import FakeIpc
from monitor.metrics import Metrics
from monitor.state import State
from monitor.vitals.device import checks
from monitor.vitals.limits import Limits
from monitor.vitals.watch import Watch

TIMES = 50
LOOK_MS, SHARE_PERCENT, SCRAPE_MS = 10.0, 0.05, 20.0
COMPONENTS, COUNTERS = 9, 30


def run() -> list[Row]:
    health = Health("edgeml.Monitor", "bench")
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        context = Context(ipc=FakeIpc(), health=health, work=folder, root=folder, thing_name="bench")
        watch, limits = Watch(checks(context), health.problems), Limits()
        state = _state(watch)
        scrape = Metrics(state)
        contestants: dict[str, Callable[[], object]] = {
            "look": lambda: watch.round(limits),
            "psutil": lambda: _psutil(folder),
            "scrape": scrape.text,
        }
        medians = interleave({name: _timed(contestant) for name, contestant in contestants.items()})
    share = medians["look"] / limits.interval_s / 10
    return [
        _row("one look at the device, CPU", "ms", medians["look"], LOOK_MS, medians["psutil"]),
        _row(f"a look every {limits.interval_s:g} s, of one core", "%", share, SHARE_PERCENT),
        _row(f"a scrape of {COMPONENTS} components, CPU", "ms", medians["scrape"], SCRAPE_MS),
    ]


def _timed(contestant: Callable[[], object]) -> Callable[[], float]:
    """Milliseconds of CPU for one."""

    def figure() -> float:
        began = time.process_time()
        for _ in range(TIMES):
            contestant()
        return (time.process_time() - began) * 1e3 / TIMES

    return figure


def _psutil(work: Path) -> None:
    psutil.sensors_temperatures()
    psutil.virtual_memory()
    psutil.disk_usage("/")
    psutil.disk_usage(str(work))
    psutil.disk_io_counters(perdisk=True)
    psutil.net_if_stats()
    psutil.boot_time()


def _state(watch: Watch) -> State:
    state = State("bench", "1", tuple, vitals=watch.vitals)
    latency = {"p50": 1.0, "p99": 2.0}
    for number in range(COMPONENTS):
        report = {
            "component": "x",
            "version": "1",
            "at": 1.0,
            "uptime_s": 1.0,
            "counters": {f"counter{each}": each for each in range(COUNTERS)},
            "rates": {},
            "latency_ms": {f"latency{each}": latency for each in range(5)},
            "gauges": {f"gauge{each}": 1.0 for each in range(10)},
            "notes": {},
            "last_error": None,
        }
        state.heard(f"edgeml/health/C{number}", json.dumps(report).encode())
    return state


def _row(metric: str, unit: str, value: float, bar: float, limit: float | None = None) -> Row:
    return Row(
        bench="vitals",
        metric=metric,
        unit=unit,
        value=value,
        limit=limit,
        ratio=value / limit if limit else None,
        bar=f"<= {bar:g} {unit}",
        ok=value <= bar,
    )
