"""The whole path, camera process -> ring -> inferencer process -> result, beside the same work in one process.

Both use the same source (a test pattern), the same bundle (the face detector at 320x256) and one ONNX Runtime
thread, and both hand their results over as JSON lines on a pipe. Throughput: the source as fast as the path takes it.
Latency: the source at 10 frames/s, from the moment of capture to the moment the line is read here.
"""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.bundles import installed
from benchmarks.harness import Row, interleave, percentile
from support import ROOT, Standalone

WIDTH, HEIGHT = 320, 256
SECONDS = 4.0
WARM_UP_S = 1.0
FLAT_OUT_FPS, CALM_FPS = 250, 10

ONE_PROCESS = """
import json, sys, time
from pathlib import Path
from camera_capture.kinds.test_pattern import PatternCamera
from edgeml import messages, models
from edgeml.messages import SampleRef
from inferencer.backends.onnx import OnnxBackend
from inferencer.config import Pipeline
from inferencer.sources.camera import CameraSource
from inferencer.tasks import runner_of
from inferencer.sample import Sample
fps, bundle = float(sys.argv[1]), models.load(Path(sys.argv[2]))
pipeline = Pipeline(source=CameraSource(camera="c"), backend=OnnxBackend(model="FaceDetector"))
runner = runner_of(bundle, models.open_session(bundle, threads=1), pipeline)
source = PatternCamera(width=int(sys.argv[3]), height=int(sys.argv[4])).open()
due = time.monotonic()
while True:
    due += 1 / fps
    time.sleep(max(0, due - time.monotonic()))
    source.grab()
    at = time.time()
    outcome = runner.infer(Sample(source.retrieve(), SampleRef(), time.monotonic_ns(), "bgr24"))
    line = {"topic": "edgeml/inference/faces", "payload": {"source": {"captured_at": at}, "results": outcome.results}}
    sys.stdout.write(messages.encode(line).decode() + "\\n")
    sys.stdout.flush()
"""


class Arrivals:
    """Counts results that arrive on a pipe, and how old they are, after a warm-up."""

    def __init__(self) -> None:
        self.ages_ms: list[float] = []
        self.counted_from = time.monotonic() + WARM_UP_S

    def read(self, stream: Any) -> None:
        for line in stream:
            now = time.time()
            if "edgeml/inference/faces" in line and time.monotonic() > self.counted_from:
                self.ages_ms.append((now - json.loads(line)["payload"]["source"]["captured_at"]) * 1e3)


def run() -> list[Row]:
    with installed("face_detector") as root:
        rates = interleave(
            {
                "two": lambda: len(_two_processes(root, FLAT_OUT_FPS)) / SECONDS,
                "one": lambda: len(_one_process(root, FLAT_OUT_FPS)) / SECONDS,
            },
            rounds=3,
        )
        ages = interleave(
            {
                "two": lambda: percentile(_two_processes(root, CALM_FPS), 50),
                "one": lambda: percentile(_one_process(root, CALM_FPS), 50),
            },
            rounds=3,
        )
    ratio, added = rates["two"] / rates["one"], ages["two"] - ages["one"]
    return [
        Row(
            bench="pipeline",
            metric="throughput",
            unit="frames/s",
            value=rates["two"],
            limit=rates["one"],
            ratio=ratio,
            bar=">= 0.95 x one process",
            ok=ratio >= 0.95,
        ),
        Row(
            bench="pipeline",
            metric="latency p50",
            unit="ms",
            value=ages["two"],
            limit=ages["one"],
            ratio=ages["two"] / ages["one"],
            bar=f"<= 2 ms more than one process (is {added:+.2f})",
            ok=added <= 2,
        ),
    ]


def _two_processes(root: Path, fps: float) -> list[float]:
    rings = root / "rings"
    rings.mkdir(exist_ok=True)
    camera = {"type": "test_pattern", "width": WIDTH, "height": HEIGHT, "fps": fps, "announce_every": 0}
    pipeline = {
        "source": {"type": "camera", "camera": "c"},
        "backend": {"type": "onnx", "model": "FaceDetector", "threads": 1, "variant": "fp32"},
    }
    capture = {"ring_directory": str(rings), "cameras": {"c": camera}}
    infer = {"ring_directory": str(rings), "pipelines": {"faces": pipeline}}
    with (
        Standalone("camera_capture", capture, root / "work" / "capture"),
        Standalone(
            "inferencer", infer, root / "work" / "infer", root=root, on_line=(arrivals := Arrivals()).read
        ) as running,
    ):
        running.logged("model loaded", 20)
        arrivals.counted_from = time.monotonic() + WARM_UP_S
        time.sleep(WARM_UP_S + SECONDS)
        return list(arrivals.ages_ms)


def _one_process(root: Path, fps: float) -> list[float]:
    bundle = root / "work" / "edgeml.model.FaceDetector" / "current"
    command = [sys.executable, "-c", ONE_PROCESS, str(fps), str(bundle), str(WIDTH), str(HEIGHT)]
    arrivals = Arrivals()
    process = subprocess.Popen(command, cwd=ROOT / "components", stdout=subprocess.PIPE, text=True)
    reader = threading.Thread(target=arrivals.read, args=[process.stdout])
    reader.start()
    try:
        if process.stdout is None:
            raise RuntimeError("no pipe")
        time.sleep(WARM_UP_S)
        arrivals.counted_from = time.monotonic() + WARM_UP_S
        time.sleep(WARM_UP_S + SECONDS)
        return list(arrivals.ages_ms)
    finally:
        process.kill()
        process.wait()
        reader.join()
        if process.stdout is not None:
            process.stdout.close()
