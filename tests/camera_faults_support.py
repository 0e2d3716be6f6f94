"""Two cameras in one component, a bad and a good one: what goes wrong in the first must not be seen in the other."""

from collections.abc import Callable
from pathlib import Path

import cv2

from camera_capture.camera import Camera
from camera_capture.component import CameraCapture
from camera_capture.config import Config
from camera_support import configured
from edgeml.component import Context
from edgeml.errors import UnauthorizedError
from edgeml.health import Health
from ipc_support import FakeIpc
from support import eventually

ERRORS: list[Callable[[], Exception]] = [
    lambda: cv2.error("assertion failed"),
    lambda: OSError(5, "Input/output error"),
    lambda: ValueError("what"),
    MemoryError,
    lambda: RuntimeError("can't start new thread"),
    lambda: KeyError("x"),
    RecursionError,
    lambda: UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates"),
]
NAMES = ["cv2", "os", "value", "memory", "runtime", "key", "recursion", "unicode"]
BAD = configured(type="test_pattern", width=33, height=17, fps=50, reconnect_min_s=0.01, reconnect_max_s=0.02)
GOOD = configured(type="test_pattern", width=32, height=16, fps=50)


class Running:
    def __init__(self, tmp_path: Path) -> None:
        self.refused: set[str] = set()
        self.fault: Exception | None = None
        self.core = FakeIpc(self._called)
        self.rings = tmp_path / "rings"
        self.rings.mkdir()
        health = Health("edgeml.CameraCapture", "1")
        self.context = Context(ipc=self.core, health=health, work=tmp_path, root=tmp_path, thing_name="t")
        self.component = CameraCapture(self.context)

    def start(self, bad: Camera = BAD) -> None:
        self.component.start(Config(cameras={"bad": bad, "good": GOOD}, ring_directory=str(self.rings)))

    def _called(self, call: str, topic: str) -> None:
        if call == "subscribe" and topic in self.refused:
            raise UnauthorizedError("not allowed")
        if call == "publish" and self.fault is not None and "/bad/" in topic:
            raise self.fault

    def count(self, name: str) -> int:
        return self.context.health.counter(name)

    def delivers(self, camera: str) -> None:
        before = self.count(f"cameras.{camera}.captured")
        eventually(lambda: self.count(f"cameras.{camera}.captured") > before + 2, what=f"frames of {camera}")

    def codes(self) -> set[tuple[str, str]]:
        return {(problem.code, problem.subject) for problem in self.context.health.problems.current()}

    def is_alive(self) -> bool:
        return self.context.events.empty()
