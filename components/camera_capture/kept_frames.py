"""The last seconds of a camera that sends no packets: its frames, as JPEGs in memory."""

import dataclasses
import threading
import time
from collections import deque
from typing import Any

from camera_capture.camera import Clips
from camera_capture.snapshots import encode_jpeg
from edgeml.frames import Frame


@dataclasses.dataclass(frozen=True)
class Kept:
    """A frame as JPEG, and when it was captured, in nanoseconds, monotonic."""

    captured_ns: int
    data: bytes


@dataclasses.dataclass(eq=False)
class Wish:
    """Frames that are wanted, of which time (monotonic); they are all there once it is `granted`."""

    from_ns: int
    until_ns: int
    frames: list[Kept] = dataclasses.field(default_factory=list)
    granted: threading.Event = dataclasses.field(default_factory=threading.Event)


class KeptFrames:
    """Frames of the last `before_s` seconds and of wishes, at most `max_bytes`. Thread-safe."""

    def __init__(self, settings: Clips) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._frames: deque[Kept] = deque()
        self._wishes: list[Wish] = []
        self.size = 0  # bytes

    def wish(self, from_ns: int, until_ns: int) -> Wish:
        """To be granted by `grant`, at the latest."""
        wish = Wish(from_ns, until_ns)
        with self._lock:
            self._wishes.append(wish)
        return wish

    def grant(self, wish: Wish) -> list[Kept]:
        """The frames that are there."""
        with self._lock:
            self._grant(wish)
        return wish.frames

    def _grant(self, wish: Wish) -> None:
        if wish in self._wishes:
            self._wishes.remove(wish)
            wish.frames = [one for one in self._frames if wish.from_ns <= one.captured_ns <= wish.until_ns]
            wish.granted.set()

    def add(self, frame: Frame) -> None:
        """Keep it, unless it was overwritten meanwhile. Where the memory is full, wishes for the oldest end now."""
        kept = Kept(frame.captured_ns, self._jpeg(frame))
        if not frame.valid():
            return
        with self._lock:
            self._frames.append(kept)
            self.size += len(kept.data)
            while self.size > self._settings.max_bytes:
                for wish in [one for one in self._wishes if one.from_ns <= self._frames[0].captured_ns]:
                    self._grant(wish)
                self.size -= len(self._frames.popleft().data)

    def forget(self) -> None:
        """Drop what is too old and nobody wants."""
        with self._lock:
            oldest = min(
                [time.monotonic_ns() - int(self._settings.before_s * 1e9), *(one.from_ns for one in self._wishes)]
            )
            while self._frames and self._frames[0].captured_ns < oldest:
                self.size -= len(self._frames.popleft().data)

    def close(self) -> None:
        """Drop everything; no wish waits any longer."""
        with self._lock:
            for wish in list(self._wishes):
                self._grant(wish)
            self._frames.clear()
            self.size = 0

    def _jpeg(self, frame: Frame) -> bytes:
        import cv2

        scale = self._settings.max_side / max(frame.width, frame.height)
        if scale < 1:
            size = max(2, round(frame.width * scale)), max(2, round(frame.height * scale))
            image: Any = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
            frame = dataclasses.replace(frame, image=image)
        return encode_jpeg(frame, self._settings.quality)
