"""A device as the Monitor's page shows it: a camera with a face before it, a pipeline, problems, a model update."""

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.frames import FrameWriter
from support import Standalone

SIZE = (1280, 720)
BOX = (400.0, 200.0, 320.0, 400.0)
MARKUP = '<img src=x onerror="document.title=1">'
FPS = 5


def report(component: str, **more: Any) -> dict[str, Any]:
    """A health report of a component."""
    figures: dict[str, Any] = {
        "counters": {},
        "rates": {},
        "latency_ms": {},
        "gauges": {},
        "notes": {},
        "last_error": None,
    }
    return {"component": component, "version": "1.1.0", "at": time.time(), "uptime_s": 5000.0, **figures, **more}


def result(frame_id: int, at_ns: int, label: str = "face", box: tuple[float, ...] = BOX) -> dict[str, Any]:
    """What a pipeline says of a frame, which was captured at `at_ns`, Unix time."""
    return {
        "pipeline": "faces",
        "model": {"name": "FaceDetectorFast", "version": "1.0.0"},
        "source": {
            "camera": "door",
            "frame_id": frame_id,
            "captured_at": at_ns / 1e9,
            "width": SIZE[0],
            "height": SIZE[1],
        },
        "task": "detection",
        "results": [{"label": label, "score": 0.93, "box": list(box)}],
        "latency_ms": {"queue": 0.2, "preprocess": 0.4, "inference": 8.1, "postprocess": 0.1},
        "device": "press-7",
    }


PROBLEM = {
    "code": "unreachable",
    "subject": "iot_core",
    "since": time.time() - 4000,
    "advice": "Look at the network, the address and the certificate; the component keeps trying.",
}


def told(running: Standalone, text: str = f"no route to host {MARKUP}") -> None:
    """The reports that components make of their health."""
    rate = random.uniform(0.9, 1.1)
    running.send("edgeml/health/CameraCapture", report("edgeml.CameraCapture", rates={"cameras.door.captured": FPS}))
    latency = {"pipelines.faces.total": {"count": 50, "p50": 9.4, "p99": 14.2, "max": 18.0}}
    rates = {"pipelines.faces.inferences": FPS * rate}
    problems = [PROBLEM | {"text": text}]
    running.send(
        "edgeml/health/Inferencer", report("edgeml.Inferencer", rates=rates, latency_ms=latency, problems=problems)
    )
    running.send("edgeml/health/LogShipper", report("edgeml.LogShipper", rates={"lines": 812.0 * rate}))


@contextmanager
def moving(
    running: Standalone, rings: Path, image: Any = None, box: tuple[float, ...] = BOX, label: str = "face"
) -> Iterator[None]:
    """A camera that gives frames, each with its result, while the block lasts."""
    picture = np.full((SIZE[1], SIZE[0], 3), 40, np.uint8) if image is None else image
    over = threading.Event()
    with FrameWriter("door", width=SIZE[0], height=SIZE[1], directory=rings) as writer:

        def go() -> None:
            with suppress(OSError, ValueError):  # the component ends first
                number, since = 0, time.time()
                while not over.wait(1 / FPS):
                    if number % (5 * FPS) == 0:
                        told(running)
                        motion = {"camera": "door", "moving": True, "at": since, "since": since, "area": 0.2}
                        running.send("edgeml/camera/door/motion", motion)
                    number += 1
                    at_ns = time.time_ns()
                    frame_id = writer.write(picture, wall_ns=at_ns)
                    running.send("edgeml/inference/faces", result(frame_id, at_ns, label, box))

        thread = threading.Thread(target=go)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(10)
