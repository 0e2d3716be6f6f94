"""From a frame in shared memory to its result with the IPC client, beside the bare model, in turns.

What is added is the whole time less the time that this very frame spent in session.run; the bare session.run of a
second session, asked in between, shows that the model is no slower within the pipeline. The model is
the image classifier (EfficientNet-Lite0 at 224x224, some 10 ms on one thread); added are the ring, the wake-up of the
pipeline's thread, preprocessing, decoding, and the result as JSON. The IPC client is one that does nothing but note
the time.

The bar is for a frame that needs no resize: 256 pixels high and wide, of which the model takes the middle. For a 720p
frame the resize comes on top, most of it the reading of pixels that the model has driven out of the caches: shown here,
and held against OpenCV's own in the benchmark `preprocess`.
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
from inferencer.backends.onnx import OnnxBackend
from inferencer.preprocess import Preprocessor
from inferencer.sources.camera import CameraSource
from inferencer_support import Recorder, make_context, no_uploads, pipeline
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
    small, large = _measured(256, 256), _measured(1280, 720)
    added, bare = small
    return [
        Row(
            bench="inferencer_overhead",
            metric="added p50, frame of 256x256",
            unit="ms",
            value=added,
            limit=bare,
            ratio=added / bare,
            bar="<= 0.5 ms, <= 0.05 x session.run",
            ok=added <= 0.5 and added <= 0.05 * bare,
        ),
        Row(
            bench="inferencer_overhead",
            metric="added p50, 720p frame",
            unit="ms",
            value=large[0],
            limit=large[1],
            ratio=large[0] / large[1],
            bar="shown only",
            ok=True,
        ),
    ]


def _measured(width: int, height: int) -> tuple[float, float]:
    """Median milliseconds added to the model's own time, and those of the bare model."""
    with installed("image_classifier") as root, tempfile.TemporaryDirectory() as rings:
        bundle = models.load(models.component_folder(root, "ImageClassifier"))
        session = models.open_session(bundle, threads=1)
        frame = np.random.default_rng(3).integers(0, 256, (height, width, 3), np.uint8)
        tensor, _ = Preprocessor(bundle.manifest.input)(frame)
        added, bare = [], []
        clock = Clock()
        cv2.setNumThreads(1)  # as the component does
        context = make_context(root, clock)
        outbox = Outbox(context.work / "iot_core.spool", context.ipc, context.health, max_bytes=1 << 20)
        settings = pipeline(OnnxBackend(model="ImageClassifier"), CameraSource(camera="c"))
        with FrameWriter("c", width=width, height=height, directory=Path(rings)) as writer:
            running = Assembly(context, Path(rings), outbox, no_uploads).start("p", settings)
            try:
                eventually(lambda: context.health.counter("pipelines.p.models_loaded"), 20, "the model")
                for _ in range(FRAMES + WARM_UP):
                    clock.published.clear()
                    with writer.slot() as slot:
                        slot.image[:] = frame
                        began = time.perf_counter()  # the frame is in shared memory, and is about to be announced
                    if not clock.published.wait(5):
                        raise RuntimeError("no result within 5 s")
                    added.append((clock.at - began) * 1e3 - clock.result["latency_ms"]["inference"])
                    began = time.perf_counter()
                    session.run(None, {"input": tensor})
                    bare.append((time.perf_counter() - began) * 1e3)
            finally:
                running.worker.stop()
                outbox.close()
    return percentile(added[WARM_UP:], 50), percentile(bare[WARM_UP:], 50)
