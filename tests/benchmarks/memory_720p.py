"""Resident memory of an Inferencer that finds faces and classifies 720p frames, beside its models in a bare process.

The process is the real one; the camera is a ring of 720p frames with a face, written faster than they can be taken.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

from benchmarks.bundles import installed
from benchmarks.harness import Row
from bundles.clips import face_clip
from edgeml import models
from edgeml.frames import FrameWriter
from support import Standalone, eventually

MOST_MB = 220
SIZE, MAX_SIDE = (1280, 720), 640
SECONDS, FPS = 8.0, 30
BARE = """
import sys
import cv2, numpy as np, onnxruntime as ort
options = ort.SessionOptions()
options.intra_op_num_threads = 1
for path, shape in zip(sys.argv[1::2], sys.argv[2::2]):
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    globals()[path] = session
    session.run(None, {session.get_inputs()[0].name: np.zeros([int(side) for side in shape.split("x")], np.float32)})
print(open("/proc/self/status").read().split("VmRSS:")[1].split()[0])
"""


def run() -> list[Row]:
    with installed("face_detector", "image_classifier") as root:
        bare = _bare(root)
        now, peak = _ours(root)
    return [
        Row(
            bench="memory_720p",
            metric=metric,
            unit="MB",
            value=value,
            limit=bare,
            ratio=value / bare,
            bar=bar,
            ok=bar == "shown" or value <= MOST_MB,
        )
        for metric, value, bar in (
            ("FaceDetector and ImageClassifier", now, f"<= {MOST_MB} MB"),
            ("the same while variants were tried", peak, "shown"),
        )
    ]


def _bare(root: Path) -> float:
    """Megabytes of both models in ONNX Runtime as it comes, with NumPy and OpenCV."""
    arguments = []
    for name, shape in (("FaceDetector", "1x3x384x640"), ("ImageClassifier", "1x3x224x224")):
        arguments += [str(models.load(models.component_folder(root, name)).model), shape]
    done = subprocess.run(
        [sys.executable, "-c", BARE, *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    return int(done.stdout) * 1024 / 1e6


def _ours(root: Path) -> tuple[float, float]:
    """Megabytes of the Inferencer after SECONDS of work, and the most that it ever had."""
    backends = {
        "faces": {"type": "onnx", "model": "FaceDetector", "max_side": MAX_SIDE, "threads": 1},
        "things": {"type": "onnx", "model": "ImageClassifier", "threads": 1},
    }
    source = {"type": "camera", "camera": "c"}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as rings, tempfile.TemporaryDirectory() as work:
        pipelines = {name: {"source": source, "backend": backend} for name, backend in backends.items()}
        config = {"ring_directory": rings, "pipelines": pipelines}
        with (
            _camera(Path(rings)) as show,
            Standalone("inferencer", config, Path(work), root=root, fresh=True) as running,
        ):
            eventually(lambda: running.log.count("model loaded") == len(backends), 30, "models")
            show()
            status = Path(f"/proc/{running.process.pid}/status").read_text(encoding="ascii")
            return _megabytes(status, "VmRSS"), _megabytes(status, "VmHWM")


@contextmanager
def _camera(rings: Path) -> Iterator[Callable[[], None]]:
    """What shows frames to whoever looks, for SECONDS."""
    capture = cv2.VideoCapture(str(face_clip()))
    frame = np.asarray(cv2.resize(capture.read()[1], SIZE), np.uint8)
    capture.release()
    with FrameWriter("c", width=SIZE[0], height=SIZE[1], directory=rings) as writer:

        def show() -> None:
            end = time.monotonic() + SECONDS
            while time.monotonic() < end:
                writer.write(frame)
                time.sleep(1 / FPS)

        yield show


def _megabytes(status: str, field: str) -> float:
    return int(status.split(f"{field}:")[1].split()[0]) * 1024 / 1e6
