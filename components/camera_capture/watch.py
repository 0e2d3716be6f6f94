"""One camera's motion: looked for in its frames, told when it begins and ends, and in the health."""

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from camera_capture.motion import MotionDetector
from edgeml.frames import Motion
from edgeml.health import Scope
from edgeml.messages import CameraMotion

if TYPE_CHECKING:
    from camera_capture.source import Image


class MotionWatch:
    """Takes the frames of `camera` in their order, one thread at a time; `end` may come from another one."""

    def __init__(
        self, camera: str, detector: MotionDetector, health: Scope, announce: Callable[[CameraMotion], None]
    ) -> None:
        self._camera, self._detector, self._health, self._announce = camera, detector, health, announce
        self._lock = threading.Lock()
        self._since = 0.0  # Unix time, 0 while nothing moves

    def start(self) -> None:
        self._health.gauge("moving", lambda: float(self._since > 0))

    def look(self, image: "Image", captured_ns: int) -> Motion:
        began = time.perf_counter()
        motion = self._detector.look(image, captured_ns / 1e9)
        self._health.observe("motion", time.perf_counter() - began)
        return motion

    def tell(self, motion: Motion, wall_ns: int) -> None:
        """Announce what is new in a frame of `wall_ns` (Unix time)."""
        if not motion.moving:
            self.end(wall_ns)
            return
        with self._lock:
            if not self._since:
                self._since = wall_ns / 1e9
                self._health.count("motions")
                self._publish(True, self._since, motion.area)

    def end(self, wall_ns: int) -> None:
        """Nothing moves any more, or nobody sees it."""
        with self._lock:
            if self._since:
                self._publish(False, wall_ns / 1e9, 0.0)
                self._since = 0.0

    def _publish(self, moving: bool, at: float, area: float) -> None:
        self._announce(CameraMotion(camera=self._camera, moving=moving, at=at, since=self._since, area=round(area, 4)))
