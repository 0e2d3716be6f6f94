"""From a 720p frame in shared memory to its result with the IPC client, beside the bare model, in turns.

What is added is the whole time less the time that this very frame spent in session.run; the bare session.run of a
second session, asked in between, shows that the model is no slower within the pipeline. The model is
the image classifier (EfficientNet-Lite0 at 224x224, some 10 ms on one thread); added are the ring, the wake-up of the
pipeline's thread, preprocessing, decoding, and the result as JSON. The IPC client is one that does nothing but note
the time.
"""

import json
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.bundles import installed
from benchmarks.harness import Row, percentile
from edgeml import models
from edgeml.frames import FrameWriter
from edgeml.outbox import Outbox
from inferencer.assembly import Assembly
from inferencer.config import CameraSource, OnnxBackend
from inferencer.preprocess import Preprocessor
from inferencer_support import Recorder, make_context, pipeline
from support import eventually

FRAMES, WARM_UP = 300, 30


class Clock(Recorder):
    """Notes when a result is published."""

    def __init__(self) -> None:
        super().__init__()
        self.at = 0.0
        self.result: dict[str, Any] = {}
        self.published = threading.Event()

    def publish(self, topic: str, payload: bytes, *, wait: float = 0.0) -> None:
        if topic == "edgeml/inference/p":
            self.at = time.perf_counter()
            self.result = json.loads(payload)
            self.published.set()


def run() -> list[Row]:
    with installed("image_classifier") as root, tempfile.TemporaryDirectory() as rings:
        bundle = models.load(models.component_folder(root, "ImageClassifier"))
        session = models.open_session(bundle, threads=1)
        frame = np.random.default_rng(3).integers(0, 256, (720, 1280, 3), np.uint8)
        tensor, _ = Preprocessor(bundle.manifest.input)(frame)
        whole, added, bare = [], [], []
        clock = Clock()
        cv2.setNumThreads(1)  # as the component does
        context = make_context(root, clock)
        relay = Outbox(context.work / "iot_core.spool", context.ipc, context.health, max_bytes=1 << 20)
        settings = pipeline(OnnxBackend(model="ImageClassifier"), CameraSource(camera="c"))
        with FrameWriter("c", width=1280, height=720, directory=Path(rings)) as writer:
            running = Assembly(context, Path(rings), relay, None).start("p", settings)
            try:
                eventually(lambda: context.health.counter("pipelines.p.models_loaded"), 20, "the model")
                for _ in range(FRAMES + WARM_UP):
                    clock.published.clear()
                    with writer.slot() as slot:
                        slot.image[:] = frame
                        began = time.perf_counter()  # the frame is in shared memory, and is about to be announced
                    if not clock.published.wait(5):
                        raise RuntimeError("no result within 5 s")
                    whole.append((clock.at - began) * 1e3)
                    added.append(whole[-1] - clock.result["latency_ms"]["inference"])
                    began = time.perf_counter()
                    session.run(None, {"input": tensor})
                    bare.append((time.perf_counter() - began) * 1e3)
            finally:
                running.worker.stop()
                relay.close()
    return _rows(*(percentile(figures[WARM_UP:], 50) for figures in (whole, added, bare)))


def _rows(whole: float, added: float, bare: float) -> list[Row]:
    return [
        Row(
            bench="inferencer_overhead",
            metric="added p50",
            unit="ms",
            value=added,
            limit=bare,
            ratio=added / bare,
            bar="<= 0.5 ms, <= 0.05 x session.run",
            ok=added <= 0.5 and added <= 0.05 * bare,
        ),
        Row(
            bench="inferencer_overhead",
            metric="frame to result p50",
            unit="ms",
            value=whole,
            limit=bare,
            ratio=whole / bare,
            bar="<= 1.05 x session.run",
            ok=whole <= 1.05 * bare,
        ),
    ]
