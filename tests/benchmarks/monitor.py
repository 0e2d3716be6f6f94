"""The Monitor's page: what a picture costs and how old it is when it arrives, and what a watcher costs a pipeline.

The Monitor, CameraCapture and the Inferencer are processes of their own; the page is a WebSocket client in this one.
"""

import json
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from benchmarks.bundles import installed
from benchmarks.harness import Row, interleave, percentile
from edgeml.frames import FrameWriter
from monitor import encode
from monitor_support import QUIET
from support import Standalone, eventually

TIMES = 40
SECONDS = 6.0
WARM_UP_S = 1.5
SIZES = {"720p": (1280, 720), "1080p": (1920, 1080)}
FPS = 15
BOXES = [{"label": "face", "score": 0.9, "box": [100, 100, 200, 200]}] * 5
PIPELINE = {
    "source": {"type": "camera", "camera": "c"},
    "backend": {"type": "onnx", "model": "FaceDetector", "threads": 1, "max_side": 640},
}


def run() -> list[Row]:
    ages = interleave({"captured": partial(_ages, SIZES["720p"], 0.0), "found": partial(_ages, SIZES["720p"], 0.05)}, 3)
    age = "to page, 720p, p50"
    return [
        *(row for name, size in SIZES.items() for row in _encoding(name, size)),
        _at_most(f"capture {age}", ages["captured"], 100, "ms"),
        _at_most(f"result {age}", ages["found"], 100, "ms"),
        _throughput(),
    ]


def _encoding(name: str, size: tuple[int, int]) -> list[Row]:
    """From a frame in its ring to a JPEG as wide as a page shows it, and whole, beside imencode alone of the frame."""
    # Blurred noise: something between a wall and a meadow.
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    frame: Any = cv2.GaussianBlur(noise, (0, 0), 2)
    quality = [cv2.IMWRITE_JPEG_QUALITY, encode.QUALITY]
    ways: dict[str, Callable[[], object]] = {
        "imencode": lambda: cv2.imencode(".jpg", frame, quality),
        "at most 960 wide": lambda: encode.jpeg(encode.scaled(frame, "bgr24", 960, copy=False)),
        "as it is": lambda: encode.jpeg(encode.scaled(frame, "bgr24", size[0], copy=False)),
    }
    figures = interleave({way: partial(_median_ms, work) for way, work in ways.items()}, rounds=7)
    limit = figures.pop("imencode")
    return [
        Row(
            bench="monitor",
            metric=f"encode {name}, {way}",
            unit="ms",
            value=value,
            limit=limit,
            ratio=value / limit,
            bar="<= 1.2 x cv2.imencode",
            ok=value <= 1.2 * limit,
        )
        for way, value in figures.items()
    ]


def _median_ms(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(TIMES):
        began = time.perf_counter()
        work()
        taken.append((time.perf_counter() - began) * 1e3)
    return percentile(taken, 50)


def _at_most(metric: str, value: float, most: float, unit: str) -> Row:
    bar, ok = f"<= {most:g} {unit}", value <= most
    return Row(bench="monitor", metric=metric, unit=unit, value=value, limit=None, ratio=None, bar=bar, ok=ok)


def _ages(size: tuple[int, int], result_after_s: float) -> float:
    """Median ms from a frame's result to its picture in a page; without results, from its capture."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with _monitor(folder, folder) as (running, page), _camera(folder, size, result_after_s, running) as known:
            shown = _watch(page, WARM_UP_S + SECONDS)
    began = shown[0][1] if shown else 0.0
    ages = [(at - known[frame]) * 1e3 for frame, at in shown if frame in known and at > began + WARM_UP_S]
    if not ages:
        raise RuntimeError("no picture came to the page")
    return percentile(ages, 50)


@contextmanager
def _camera(
    folder: Path, size: tuple[int, int], result_after_s: float, monitor: Standalone
) -> Iterator[dict[int, float]]:
    """Writes frames, whose results come a moment later if so; from when on each could be shown, in Unix time."""
    coarse = np.random.default_rng(1).integers(0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8)
    image: Any = cv2.resize(coarse, size, interpolation=cv2.INTER_LINEAR)
    known: dict[int, float] = {}
    over = threading.Event()

    def write() -> None:
        due = time.monotonic()
        with FrameWriter("c", width=size[0], height=size[1], directory=folder) as writer:
            while not over.wait(max(0.0, due - time.monotonic())):
                due += 1 / FPS
                wall_ns = time.time_ns()
                frame_id = writer.write(image, wall_ns=wall_ns)
                known[frame_id] = wall_ns / 1e9
                if result_after_s:
                    time.sleep(result_after_s)
                    known[frame_id] = time.time()
                    monitor.send("edgeml/inference/p", _result(frame_id, wall_ns / 1e9))

    writing = threading.Thread(target=write)
    writing.start()
    try:
        yield known
    finally:
        over.set()
        writing.join()


def _result(frame_id: int, captured_at: float) -> dict[str, Any]:
    return {
        "pipeline": "p",
        "model": {"name": "m", "version": "1"},
        "source": {"camera": "c", "frame_id": frame_id, "captured_at": captured_at},
        "task": "detection",
        "results": BOXES,
        "latency_ms": {"queue": 1, "preprocess": 1, "inference": 1, "postprocess": 1},
        "device": "bench",
    }


@contextmanager
def _monitor(work: Path, rings: Path) -> Iterator[tuple[Standalone, Connection]]:
    """A Monitor, and a page that is open."""
    config = {**QUIET, "auth": "off", "ring_directory": str(rings)}
    with Standalone("monitor", config, work / "monitor") as running:
        eventually(lambda: "address=http://" in running.log, 20, "the page's address")
        base = running.log.partition("address=http://")[2].split()[0]
        with connect(f"ws://{base}ws", proxy=None) as page:
            yield running, page


def _watch(page: Connection, seconds: float) -> list[tuple[int, float]]:
    """The frames that are shown, each with when it arrived."""
    page.send(json.dumps({"watch": {"c": {"max_width": 960}}}))
    shown, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            message = page.recv(0.5)
        except TimeoutError:
            continue
        if isinstance(message, bytes):
            header = json.loads(message[4 : 4 + int.from_bytes(message[:4], "big")])
            shown.append((header["frame_id"], time.time()))
            page.send(json.dumps({"shown": {"camera": "c", "frame_id": header["frame_id"]}}))
    return shown


def _throughput() -> Row:
    """A detector on a 720p camera whose results the Monitor hears, with a watcher beside without one."""
    with installed("face_detector") as root:
        rates = interleave({"watched": partial(_rate, root, True), "alone": partial(_rate, root, False)}, rounds=3)
    ratio = rates["watched"] / rates["alone"]
    is_free = rates["alone"] >= 0.97 * FPS  # else even without a watcher no core was left
    return Row(
        bench="monitor",
        metric=f"pipeline on 720p at {FPS}/s, with a watcher",
        unit="results/s",
        value=rates["watched"],
        limit=rates["alone"],
        ratio=ratio,
        bar=">= 0.97 x without" if is_free else "shown: no core was free",
        ok=ratio >= 0.97 or not is_free,
    )


def _rate(root: Path, watched: bool) -> float:
    """Results a second."""
    (rings := root / "rings").mkdir(exist_ok=True)
    camera = {"type": "test_pattern", "width": 1280, "height": 720, "fps": FPS}
    capture = {"ring_directory": str(rings), "cameras": {"c": camera}}
    infer = {"ring_directory": str(rings), "pipelines": {"p": PIPELINE}}
    results: list[float] = []
    with _monitor(root / "work", rings) as (running, page), Standalone("camera_capture", capture, root / "work" / "c"):

        def pass_on(stdout: Any) -> None:
            for line in stdout:
                message = json.loads(line)
                if message["topic"] == "edgeml/inference/p":
                    results.append(time.monotonic())
                    running.send(message["topic"], message["payload"])

        with Standalone("inferencer", infer, root / "work" / "i", root=root, on_line=pass_on) as inferencer:
            inferencer.logged("model loaded", 20)
            watching = threading.Thread(target=_watch, args=(page, WARM_UP_S + SECONDS))
            if watched:
                watching.start()
            began = time.monotonic() + WARM_UP_S
            time.sleep(WARM_UP_S + SECONDS)
            if watched:
                watching.join()
            return sum(began < at < began + SECONDS for at in results) / SECONDS
