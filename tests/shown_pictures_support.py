"""Pictures of a real ring on their way to a page."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.errors import NotFoundError
from edgeml.frames import FrameWriter
from edgeml.health import Health
from ipc_support import FakeIpc
from monitor.pictures import Picture, Pictures
from monitor.state import State
from support import eventually

SIZES = {"720p": (1280, 720), "1080p": (1920, 1080)}
FACE = {"label": "face", "score": 0.9, "box": [400, 200, 200, 200]}


class Configured(FakeIpc):
    """Answers with the pipelines that an Inferencer has; there is no other component."""

    def __init__(self, **pipelines: Any) -> None:
        super().__init__()
        self.pipelines = pipelines

    def configuration(self, component: str = "") -> dict[str, Any]:
        if component != "edgeml.Inferencer":
            raise NotFoundError(component)
        return {"pipelines": self.pipelines}


class Rig:
    """A camera `door` with a real ring, and who watches it."""

    def __init__(self, folder: Path, width: int = 1280, height: int = 720) -> None:
        self.folder, self.size = folder, (width, height)
        self.state = State("thing", "1", lambda: ())
        self.state.neighbours.place(folder)
        self.health = Health("edgeml.Monitor", "1")
        self.threads: list[threading.Thread] = []
        self.pictures = Pictures(self.state, self.health, self._spawn, fps=50)
        self.writer = self.wrote()
        self.shown: list[Picture] = []
        self.rng = np.random.default_rng(1)

    def wrote(self) -> FrameWriter:
        return FrameWriter("door", width=self.size[0], height=self.size[1], directory=self.folder)

    def configured(self, **pipelines: Any) -> None:
        self.state.neighbours.ask(Configured(**pipelines))

    def frame(self) -> tuple[int, float]:
        """Write noise; the frame's id and when it was captured."""
        wall_ns = time.time_ns()
        image = self.rng.integers(0, 256, (self.size[1], self.size[0], 3), np.uint8)
        return self.writer.write(image, wall_ns=wall_ns), wall_ns / 1e9

    def found(self, frame: tuple[int, float], pipeline: str = "p", **changes: Any) -> None:
        """Have a pipeline's result arrive, as it comes from the core."""
        result = {
            "pipeline": pipeline,
            "model": {"name": "Faces", "version": "1"},
            "source": {"camera": "door", "frame_id": frame[0], "captured_at": frame[1]},
            "task": "detection",
            "results": [FACE],
            "latency_ms": {"queue": 1, "preprocess": 1, "inference": 1, "postprocess": 1},
            "device": "thing",
        }
        assert self.state.result(f"edgeml/inference/{pipeline}", json.dumps(result | changes).encode())

    def watch(self, width: int = 960, **options: Any) -> Callable[[], None]:
        unwatch = self.pictures.watch("door", width, self.shown.append, **options)
        assert unwatch is not None
        return unwatch

    def picture(self, frame_id: int) -> Picture:
        def there() -> list[Picture]:
            return [picture for picture in self.shown if picture.frame_id == frame_id]

        return eventually(there, 10, f"picture {frame_id} of {[each.frame_id for each in self.shown]}")[0]

    def attached(self) -> None:
        """Write until the camera is read; what came till then is forgotten."""
        while not self.shown:
            self.frame()
            time.sleep(0.005)
        self.quiet()

    def quiet(self) -> None:
        """Wait until nothing more comes, and forget what came."""
        count = -1
        while count != len(self.shown):
            count = len(self.shown)
            time.sleep(0.1)
        self.shown.clear()

    def close(self) -> None:
        self.pictures.close()
        for thread in self.threads:
            thread.join(5)
            assert not thread.is_alive()
        self.writer.close()

    def _spawn(self, name: str, work: Callable[[], None]) -> None:
        self.threads.append(threading.Thread(target=work, name=name, daemon=True))
        self.threads[-1].start()
