"""A face detector and, behind it, an expression of each face, beside two threads that do nothing but session.run."""

import os
import queue
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.bundles import installed
from benchmarks.harness import Row, interleave
from bundles.clips import face_clip
from edgeml import models
from edgeml.component import Context
from edgeml.frames import FrameWriter
from edgeml.outbox import Outbox
from inferencer.assembly import Assembly
from inferencer.backends.onnx import OnnxBackend
from inferencer.preprocess import Preprocessor
from inferencer.sources.camera import CameraSource
from inferencer.sources.detections import DetectionsSource
from inferencer_support import Recorder, make_context, no_uploads, pipeline
from support import Standalone, eventually

SECONDS = 3.0
SIZE, MAX_SIDE = (1280, 720), 640
FPS = 60  # more than can be done


def run() -> list[Row]:
    with installed("face_detector", "emotion", "image_classifier") as root:
        figures = interleave({"chain": lambda: _chain(root), "bare": lambda: _bare(root)}, rounds=3)
        one, two = _megabytes(root, 1), _megabytes(root, 2)
    ratio = figures["chain"] / figures["bare"]
    return [
        Row(
            bench="chain",
            metric="face -> expression",
            unit="faces/s",
            value=figures["chain"],
            limit=figures["bare"],
            ratio=ratio,
            bar=">= 0.9 x the same two sessions bare",
            ok=ratio >= 0.9,
        ),
        Row(
            bench="chain",
            metric="memory of two pipelines on one model",
            unit="MB",
            value=two,
            limit=one,
            ratio=two / one,
            bar="<= 1.1 x that of one",
            ok=two <= 1.1 * one,
        ),
    ]


def _frame() -> Any:
    capture = cv2.VideoCapture(str(face_clip()))
    try:
        return cv2.resize(capture.read()[1], SIZE)
    finally:
        capture.release()


def _bare(root: Path) -> float:
    """Faces per second: one thread runs the detector, and the other the expression once for each of its answers."""
    bundles = [models.load(models.component_folder(root, name)) for name in ("FaceDetector", "Emotion")]
    sessions = [models.open_session(bundle, threads=1) for bundle in bundles]
    found: queue.SimpleQueue[bool] = queue.SimpleQueue()
    large, _ = Preprocessor(bundles[0].manifest.input, MAX_SIDE)(_frame())
    small = np.zeros((1, 64, 64, 1), np.float32)

    def behind() -> None:
        while found.get():
            sessions[1].run(None, {"input": small})

    thread = threading.Thread(target=behind)
    thread.start()
    count, began = 0, time.monotonic()
    while time.monotonic() - began < SECONDS:
        sessions[0].run(None, {"input": large})
        found.put(True)
        count += 1
    found.put(False)
    thread.join()
    return count / (time.monotonic() - began)


def _chain(root: Path) -> float:
    """Faces per second whose expression is known, with more frames than can be taken."""
    context, frame = make_context(root, Recorder()), _frame()
    outbox = Outbox(context.work / "iot_core.spool", context.ipc, context.health, max_bytes=1 << 20)
    with (
        tempfile.TemporaryDirectory() as folder,
        FrameWriter("c", width=SIZE[0], height=SIZE[1], directory=Path(folder)) as writer,
    ):
        assembly = Assembly(context, Path(folder), outbox, no_uploads)
        faces = pipeline(OnnxBackend(model="FaceDetector", max_side=MAX_SIDE, variant="fp32"), CameraSource(camera="c"))
        source = DetectionsSource(pipeline="faces", margin=0.2, square=True)
        running = [assembly.start("faces", faces)]
        running.append(assembly.start("expression", pipeline(OnnxBackend(model="Emotion"), source)))
        try:
            for name in ("faces", "expression"):
                eventually(lambda: context.health.counter(f"pipelines.{name}.models_loaded"), 20, "model")  # noqa: B023
            began = before = 0.0
            due = time.monotonic()
            for written in range(int((SECONDS + 0.5) * FPS)):
                writer.write(frame)
                if written == FPS // 2:
                    began, before = time.monotonic(), _done(context)
                due += 1 / FPS
                time.sleep(max(0.0, due - time.monotonic()))
            return (_done(context) - before) / (time.monotonic() - began)
        finally:
            for each in running:
                each.worker.stop()
            outbox.close()


def _done(context: Context) -> int:
    return context.health.counter("pipelines.expression.inferences")


def _megabytes(root: Path, count: int) -> float:
    """Resident memory of an Inferencer with `count` pipelines on the image classifier."""
    backend = {"type": "onnx", "model": "ImageClassifier", "variant": "fp32"}
    one = {"source": {"type": "topic", "topic": "t"}, "backend": backend}
    config = {"pipelines": {f"p{number}": one for number in range(count)}}
    with tempfile.TemporaryDirectory() as work, Standalone("inferencer", config, Path(work), root=root) as running:
        eventually(lambda: running.log.count("model loaded") == count, 30, "models")
        pages = int(Path(f"/proc/{running.process.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
