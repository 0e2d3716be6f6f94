"""Log files to PutLogEvents, beside the least that Python has to do for it, into the same bounded loopback receiver."""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import log_receiver
from benchmarks.harness import Row
from benchmarks.log_rig import Shipper

FILES, LINES = 8, 50_000  # rotated files and the active one; lines in each
ROUNDS = 3
TIMEOUT_S = 60.0
CONTEXT = "{scriptName=services.edgeml.A.lifecycle.run, serviceName=edgeml.A, currentState=RUNNING}"


def run() -> list[Row]:
    ours, limit = [], []
    with tempfile.TemporaryDirectory() as folder:
        sources = _write(Path(folder) / "lines")
        for number in range(ROUNDS):
            ours.append(_shipper(Path(folder) / f"run-{number}", sources))
            limit.append(_limit(sources))
    rate, cpu, event, memory = (statistics.median(column) for column in zip(*ours, strict=True))
    best_rate, best_cpu, best_event = (statistics.median(column) for column in zip(*limit, strict=True))
    return [
        _row("rate", "events/s", rate, best_rate, ">= 150,000", rate >= 150_000),
        _row("cpu with start-up", "us/event", cpu, best_cpu, "<= 4", cpu <= 4),
        _row("cpu of an event", "us", event, best_event, "<= 1.0", event <= 1),
        _row("peak memory", "MB", memory, None, "<= 60", memory <= 60),
    ]


def _row(metric: str, unit: str, value: float, limit: float | None, bar: str, ok: bool) -> Row:
    ratio = value / limit if limit else None
    return Row(bench="log_throughput", metric=metric, unit=unit, value=value, limit=limit, ratio=ratio, bar=bar, ok=ok)


def _write(folder: Path) -> list[Path]:
    """Nucleus log lines of 264 bytes on average, a thousand to the second, ten to the millisecond."""
    folder.mkdir()
    start = time.time() - 3600
    paths = []
    for index in range(FILES):
        lines = []
        for number in range(index * LINES, (index + 1) * LINES):
            moment = start + number / 1000
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment))
            text = f"line {number} " + "x" * (60 + number % 80)
            lines.append(
                f"{stamp}.{int(moment * 1000) % 1000:03}Z [INFO] (Copier) edgeml.A: stdout. {text}. {CONTEXT}\n"
            )
        paths.append(folder / f"edgeml.A_2026_11_21_05_{index}.log")
        paths[-1].write_text("".join(lines))
    return paths


def _shipper(folder: Path, sources: list[Path]) -> tuple[float, float, float, float]:
    """Events/s from the first to the last request, CPU us an event with start-up and without, peak memory in MB."""
    with log_receiver.running() as receiver:
        process = Shipper(folder, {}, AWS_ENDPOINT_URL=receiver.url)
        for source in sources[:-1]:
            shutil.copy2(source, process.logs)  # a log has one name
        active = process.logs / "edgeml.A.log"
        shutil.copy2(sources[-1], active)
        process.start()
        try:
            begun, began = receiver.wait_for(LINES, TIMEOUT_S).events, process.cpu_s()
            active.rename(process.logs / sources[-1].name)  # rotated while the backlog is being read
            received = receiver.wait_for(FILES * LINES, TIMEOUT_S)
            cpu, memory = process.cpu_s(), process.memory_mb("VmHWM")
        finally:
            process.stop()
    rate = received.events / (received.last - received.first)
    return rate, cpu / received.events * 1e6, (cpu - began) / (received.events - begun) * 1e6, memory


def _limit(sources: list[Path]) -> tuple[float, float, float]:
    with log_receiver.running() as receiver:
        script = Path(__file__).with_name("log_limit.py")
        command = [sys.executable, str(script), receiver.url, *map(str, sources)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
        received = receiver.received()
    _, cpu, event = map(float, done.stdout.split())
    return received.events / (received.last - received.first), cpu, event
