"""From the write of a line to its receipt at 1,000 lines/s, with the default interval of one second."""

import tempfile
import time
from pathlib import Path

from benchmarks import log_receiver
from benchmarks.harness import Row, percentile
from benchmarks.log_rig import Shipper

RATE, SECONDS = 1_000, 8
STEP_S = 0.01
INTERVAL_S = 1.0


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder, log_receiver.running(stamps=True) as receiver:
        process = Shipper(Path(folder), {"periodicUploadIntervalSec": INTERVAL_S}, AWS_ENDPOINT_URL=receiver.url)
        process.start()
        try:
            written = _write(process.logs / "edgeml.A.log")
            lags = receiver.wait_for(written, 15).lags
            memory = process.memory_mb()
        finally:
            process.stop()
    lags = lags[RATE:]  # without the start of the process
    p50, p99 = percentile(lags, 50), percentile(lags, 99)
    return [
        _row("p50", "s", p50, INTERVAL_S, "<= 1.2", p50 <= 1.2),
        _row("p99", "s", p99, INTERVAL_S, "<= 2", p99 <= 2),
        _row("memory", "MB", memory, None, "<= 60", memory <= 60),
    ]


def _row(metric: str, unit: str, value: float, limit: float | None, bar: str, ok: bool) -> Row:
    ratio = value / limit if limit else None
    return Row(bench="log_lag", metric=metric, unit=unit, value=value, limit=limit, ratio=ratio, bar=bar, ok=ok)


def _write(path: Path) -> int:
    began = time.monotonic()
    written = 0
    with path.open("a") as file:
        while written < RATE * SECONDS:
            due = int((time.monotonic() - began) * RATE)
            for _ in range(written, min(due, RATE * SECONDS)):
                now = time.time()
                stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
                file.write(
                    f"{stamp}.{int(now * 1000) % 1000:03}Z [INFO] (Copier) a: stdout. sent={now:.6f} x{'x' * 150}\n"
                )
                written += 1
            file.flush()
            time.sleep(STEP_S)
    return written
