"""Requests for the classification of a JPEG, beside a bare loop of imread, preprocessing and session.run."""

import json
import tempfile
import time
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
from inferencer_support import Recorder, deliver, make_context, no_uploads, pipeline
from support import eventually

REQUESTS = 60


def run() -> list[Row]:
    with installed("image_classifier") as root, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.jpg"
        noise = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)
        cv2.imwrite(str(path), cv2.GaussianBlur(noise, (0, 0), 4))
        bundle = models.load(models.component_folder(root, "ImageClassifier"))
        session, prepare = models.open_session(bundle, threads=1), Preprocessor(bundle.manifest.input)
        ipc = Recorder()
        context = make_context(root, ipc)
        relay = Outbox(context.work / "iot_core.spool", context.ipc, context.health, max_bytes=1 << 20)
        settings = RequestSource(allowed_dirs=(folder,), queue=REQUESTS)
        started = Assembly(context, root, relay, no_uploads).start(
            "p", pipeline(OnnxBackend(model="ImageClassifier", variant="fp32"), settings, score_threshold=0.0001)
        )
        request = json.dumps({"image_dir": folder, "fname": path.name}).encode()

        def ours() -> float:
            before, began = len(ipc.on("local/result")), time.perf_counter()
            for _ in range(REQUESTS):
                deliver(started, "local/inference", request)
            eventually(lambda: len(ipc.on("local/result")) == before + REQUESTS, 60, "answers")
            return REQUESTS / (time.perf_counter() - began)

        def bare() -> float:
            began = time.perf_counter()
            for _ in range(REQUESTS):
                tensor, _ = prepare(np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR)))
                session.run(None, {"input": tensor})
            return REQUESTS / (time.perf_counter() - began)

        try:
            eventually(lambda: context.health.counter("pipelines.p.models_loaded"), 20, "the model")
            ours()
            figures = interleave({"ours": ours, "bare": bare})
        finally:
            started.worker.stop()
            relay.close()
    ratio = figures["ours"] / figures["bare"]
    return [
        Row(
            bench="classification",
            metric="requests answered",
            unit="1/s",
            value=figures["ours"],
            limit=figures["bare"],
            ratio=ratio,
            bar=">= 0.9 x a bare loop",
            ok=ratio >= 0.9,
        )
    ]
