"""Requests for the classification of a JPEG, beside a bare loop of imread, preprocessing and session.run.

And requests that wait together, in batches beside one after the other: of a model of 64x64 pixels, which takes batches,
and of one of 224x224, which does not, because it would not gain.
"""

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from benchmarks.bundles import installed
from benchmarks.harness import Row, interleave
from edgeml import models
from edgeml.outbox import Outbox
from inferencer.assembly import Assembly
from inferencer.backends.onnx import OnnxBackend
from inferencer.preprocess import Preprocessor
from inferencer.sources.request import RequestSource
from inferencer.tasks import runner
from inferencer_support import Recorder, deliver, make_context, no_uploads, pipeline
from support import eventually

Clock = Callable[[], float]  # seconds

REQUESTS = 60
SMALL = 64  # pixels
SAME = 0.95  # of a rate


class Answers(Recorder):
    """Notes when as many answers as were asked for are there."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.missing, self.at, self.complete = 0, 0.0, threading.Event()

    def publish(self, topic: str, payload: bytes, *, wait: float = 0.0) -> None:
        super().publish(topic, payload, wait=wait)
        if topic == "local/result":
            self.missing -= 1
            if not self.missing:
                self.at = self._clock()
                self.complete.set()


def run() -> list[Row]:
    with installed("image_classifier", "emotion") as root, tempfile.TemporaryDirectory() as folder:
        row = _beside_bare(root, _picture(Path(folder) / "a.jpg", 640, 480))
        small = _picture(Path(folder) / "b.png", SMALL, SMALL)
        batches = [_in_batches(root, model, small) for model in ("Emotion", "ImageClassifier")]
    return [row, *batches]


def _picture(path: Path, width: int, height: int) -> Path:
    noise = np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)
    cv2.imwrite(str(path), cv2.GaussianBlur(noise, (0, 0), 4))
    return path


@contextmanager
def _asked(root: Path, model: str, picture: Path, clock: Clock) -> Iterator[Callable[[], float]]:
    """What asks for a picture REQUESTS times at once, and gives the answers per second of `clock`."""
    ipc = Answers(clock)
    context = make_context(Path(tempfile.mkdtemp(dir=picture.parent)), ipc)
    context.root = root
    relay = Outbox(context.work / "iot_core.spool", context.ipc, context.health, max_bytes=1 << 20)
    settings = RequestSource(allowed_dirs=(str(picture.parent),), queue=REQUESTS)
    backend = OnnxBackend(model=model, variant="fp32")
    started = Assembly(context, root, relay, no_uploads).start("p", pipeline(backend, settings, score_threshold=0.0001))
    request = json.dumps({"image_dir": str(picture.parent), "fname": picture.name}).encode()

    def ask() -> float:
        ipc.missing, began = REQUESTS, clock()
        ipc.complete.clear()
        for _ in range(REQUESTS):
            deliver(started, "local/inference", request)
        if not ipc.complete.wait(60):
            raise RuntimeError(f"{ipc.missing} answers are missing after 60 s")
        return REQUESTS / (ipc.at - began)

    try:
        eventually(lambda: context.health.counter("pipelines.p.models_loaded"), 20, "the model")
        ask()
        yield ask
    finally:
        started.worker.stop()
        relay.close()


def _beside_bare(root: Path, picture: Path) -> Row:
    bundle = models.load(models.component_folder(root, "ImageClassifier"))
    session, prepare = models.open_session(bundle, threads=1), Preprocessor(bundle.manifest.input)

    def bare() -> float:
        began = time.perf_counter()
        for _ in range(REQUESTS):
            tensor, _ = prepare(np.asarray(cv2.imread(str(picture), cv2.IMREAD_COLOR)))
            session.run(None, {"input": tensor})
        return REQUESTS / (time.perf_counter() - began)

    with _asked(root, "ImageClassifier", picture, time.perf_counter) as ours:
        figures = interleave({"ours": ours, "bare": bare})
    ratio = figures["ours"] / figures["bare"]
    return Row(
        bench="classification",
        metric="requests answered",
        unit="1/s",
        value=figures["ours"],
        limit=figures["bare"],
        ratio=ratio,
        bar=">= 0.9 x a bare loop",
        ok=ratio >= 0.9,
    )


def _in_batches(root: Path, model: str, picture: Path) -> Row:
    """Requests that wait, as the model takes them, or in batches whether it gains or not, beside one by one."""
    barred = model == "Emotion"
    kept = runner.CACHED_BYTES
    try:
        runner.CACHED_BYTES = 0
        with _asked(root, model, picture, time.process_time) as alone:
            runner.CACHED_BYTES = kept if barred else 1 << 30
            with _asked(root, model, picture, time.process_time) as together:
                figures = interleave({"together": together, "alone": alone}, rounds=9)
    finally:
        runner.CACHED_BYTES = kept
    ratio = figures["together"] / figures["alone"]
    return Row(
        bench="classification",
        metric=f"requests that wait, {model}" + " if it took batches, too" * (not barred),
        unit="1/s of CPU",
        value=figures["together"],
        limit=figures["alone"],
        ratio=ratio,
        bar=">= one by one" if barred else "shown",
        ok=not barred or ratio >= SAME,
    )
