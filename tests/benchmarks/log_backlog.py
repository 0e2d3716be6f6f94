"""A backlog of 1 GB, as after a day without network: memory must stay where it was after the first tenth."""

import tempfile
import time
from pathlib import Path

from benchmarks import log_receiver
from benchmarks.harness import Row
from benchmarks.log_rig import Shipper

BACKLOG_BYTES = 1_000_000_000
FILES = 10
LINES_A_BLOCK = 4_000
TIMEOUT_S = 90.0


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder, log_receiver.running() as receiver:
        process = Shipper(Path(folder), {}, AWS_ENDPOINT_URL=receiver.url)
        lines = _write(process.logs)
        process.start()
        try:
            receiver.wait_for(lines // 10, TIMEOUT_S)
            early = process.memory_mb("VmHWM")
            received = receiver.wait_for(lines, TIMEOUT_S)
            peak = process.memory_mb("VmHWM")
        finally:
            process.stop()
    rate = BACKLOG_BYTES / 1e6 / (received.last - received.first)
    growth = peak - early
    return [
        _row("memory growth after the first tenth", "MB", growth, early, "<= 4", growth <= 4),
        _row("peak memory", "MB", peak, None, "<= 60", peak <= 60),
        _row("rate", "MB/s", rate, None, ">= 30", rate >= 30),
    ]


def _row(metric: str, unit: str, value: float, limit: float | None, bar: str, ok: bool) -> Row:
    ratio = value / limit if limit else None
    return Row(bench="log_backlog", metric=metric, unit=unit, value=value, limit=limit, ratio=ratio, bar=bar, ok=ok)


def _write(folder: Path) -> int:
    """The same block over and over; the number of lines."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() - 60))
    block = "".join(
        f"{stamp}.{number % 1000:03}Z [INFO] (Copier) edgeml.A: stdout. line {number} {'x' * 180}\n"
        for number in range(LINES_A_BLOCK)
    ).encode()
    blocks = BACKLOG_BYTES // len(block) // FILES
    for index in range(FILES):
        with (folder / f"edgeml.A_2026_11_21_05_{index}.log").open("wb") as file:
            file.write(index.to_bytes(1, "big").hex().encode() + b" first line\n")  # no two files begin alike
            for _ in range(blocks):
                file.write(block)
    return FILES * (blocks * LINES_A_BLOCK + 1)
