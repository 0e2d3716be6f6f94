"""Two pipelines side by side, one thread of inference each, beside two threads that do nothing but session.run."""

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bundles import installed
from benchmarks.harness import Row, interleave
from edgeml import models
from edgeml.component import Context
from edgeml.frames import FrameWriter
from edgeml.outbox import Outbox
from inferencer.assembly import Assembly
from inferencer.backends.onnx import OnnxBackend
from inferencer.sources.camera import CameraSource
from inferencer_support import Recorder, make_context, no_uploads, pipeline
from support import eventually

SECONDS = 2.0


def run() -> list[Row]:
    with installed("image_classifier") as root, tempfile.TemporaryDirectory() as rings:
        figures = interleave(
            {
                "one": lambda: _rate(root, Path(rings), 1),
                "two": lambda: _rate(root, Path(rings), 2),
                "bare": lambda: _bare(root),
            },
            rounds=3,
        )
    ratio, scaling = figures["two"] / figures["bare"], figures["two"] / figures["one"]
    return [
        Row(
            bench="multi_pipeline",
            metric="two pipelines together",
            unit="inferences/s",
            value=figures["two"],
            limit=figures["bare"],
            ratio=ratio,
            bar=f">= 0.85 x two bare threads ({scaling:.2f} x one pipeline alone)",
            ok=ratio >= 0.85,
        )
    ]


def _bare(root: Path) -> float:
    """Inferences per second of two threads with a session each."""
    bundle = models.load(models.component_folder(root, "ImageClassifier"))
    tensor = np.zeros((1, 3, 224, 224), np.float32)
    until = time.monotonic() + SECONDS

    def loop(session: Any) -> int:
        count = 0
        while time.monotonic() < until:
            session.run(None, {"input": tensor})
            count += 1
        return count

    sessions = [models.open_session(bundle, threads=1) for _ in range(2)]
    began, until = time.monotonic(), time.monotonic() + SECONDS
    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(loop, sessions)) / (time.monotonic() - began)


def _rate(root: Path, rings: Path, count: int) -> float:
    """Inferences per second of `count` pipelines that get more frames than they can take."""
    context = make_context(root, Recorder())
    relay = Outbox(context.work / "iot_core.spool", context.ipc, context.health, max_bytes=1 << 20)
    frame = np.zeros((224, 224, 3), np.uint8)
    assembly = Assembly(context, rings, relay, no_uploads)
    with FrameWriter("c", width=224, height=224, directory=rings) as writer:
        settings = pipeline(OnnxBackend(model="ImageClassifier"), CameraSource(camera="c"))
        running = [assembly.start(f"p{number}", settings) for number in range(count)]
        try:
            for number in range(count):
                eventually(lambda: context.health.counter(f"pipelines.p{number}.models_loaded"), 20, "model")  # noqa: B023
            began = before = 0.0
            due = time.monotonic()
            for written in range(int((SECONDS + 0.5) * 400)):
                writer.write(frame)
                if written == 200:
                    began, before = time.monotonic(), _done(context, count)
                due += 1 / 400
                time.sleep(max(0.0, due - time.monotonic()))
            return (_done(context, count) - before) / (time.monotonic() - began)
        finally:
            for pipe in running:
                pipe.worker.stop()
            relay.close()


def _done(context: Context, count: int) -> int:
    return sum(context.health.counter(f"pipelines.p{number}.inferences") for number in range(count))
