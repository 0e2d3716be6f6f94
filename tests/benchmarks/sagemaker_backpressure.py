"""An endpoint slowed to 500 ms, asked by a pipeline that gets 1,000 messages/s: memory stays, the newest wins."""

import resource
import tempfile
import time
from pathlib import Path

from benchmarks.harness import Row, percentile
from edgeml.outbox import Outbox
from inferencer.assembly import Assembly
from inferencer.backends.http import HttpBackend
from inferencer.sources.topic import TopicSource
from inferencer_support import Answer, Recorder, deliver, endpoint, make_context, no_uploads, pipeline

SECONDS, RATE, SLOW_S = 8, 1000, 0.5


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as folder, endpoint() as server:
        server.behave = lambda body: Answer(body=b"1", delay_s=SLOW_S)
        ipc = Recorder()
        context = make_context(Path(folder), ipc)
        relay = Outbox(context.work / "iot_core.spool", context.ipc, context.health, max_bytes=1 << 20)
        backend = HttpBackend(url=server.url, task="regression")
        started = Assembly(context, Path(folder), relay, no_uploads).start(
            "p", pipeline(backend, TopicSource(topic="t"))
        )
        began, before = time.monotonic(), _resident_mb()
        try:
            for number in range(SECONDS * RATE):
                deliver(started, "t", str(number).encode())
                time.sleep(max(0.0, began + number / RATE - time.monotonic()))
            grown = _resident_mb() - before
        finally:
            server.released.set()
            started.worker.stop()
            relay.close()
    waited = [result["latency_ms"]["queue"] for result in ipc.on("edgeml/inference/p")]
    age = percentile(waited, 99)
    return [
        Row(
            bench="sagemaker_backpressure",
            metric="age of an input when asked, p99",
            unit="ms",
            value=age,
            limit=SLOW_S * 1e3,
            ratio=age / (SLOW_S * 1e3),
            bar="<= 0.1 x the endpoint's time",
            ok=age <= 0.1 * SLOW_S * 1e3,
        ),
        Row(
            bench="sagemaker_backpressure",
            metric="memory grown",
            unit="MB",
            value=grown,
            limit=None,
            ratio=None,
            bar="<= 10 MB",
            ok=grown <= 10,
        ),
    ]


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
