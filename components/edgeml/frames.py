"""Frames from one process to others through a ring in shared memory: FrameWriter, FrameReader.

One writer, any number of readers, no copies but the ones into and out of the ring, no wait of the writer for a reader.
Writer and readers see the same /proc (one PID namespace): a writer's death is noticed by its pid and start time.
"""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgeml import _futex
from edgeml._ring import MODE, Ring, create_ring, open_ring
from edgeml._ring_header import GROUP_MODE, Layout, Motion, Origin, ring_path
from edgeml.errors import FrameError, RingNotFoundError

__all__ = ["DIRECTORY", "Frame", "FrameReader", "FrameWriter", "Motion", "ReaderStats", "Slot"]

DIRECTORY = Path("/dev/shm")  # noqa: S108  (shared memory is the point; _ring.py opens nothing it does not own)

CHECK_S = 0.1  # how often a reader without a new frame looks whether its writer has died or begun a new ring
_ATTACH_POLL_S = 0.02
_IDLE_WAKES, _IDLE_S = 16, 0.001  # after so many waits in a row that were shorter and brought no frame, a reader slows
# down: nothing that another process writes makes it spin

_SAME_S, _FAR_S = 0.001, 0.5  # times that are the same after they were written as text; times that never are


@dataclass(slots=True, eq=False)
class Slot:
    """A frame being written in place. `captured_ns` and `wall_ns` may be set; otherwise they are the time of commit.

    `motion` says whether something moves in it; None where nobody looks.
    """

    frame_id: int
    image: NDArray[np.uint8] = field(repr=False)
    captured_ns: int | None = None
    wall_ns: int | None = None
    motion: Motion | None = None


@dataclass(slots=True, eq=False)
class Frame:
    """One frame: `image` is (height, width, 3) or, for gray8, (height, width), uint8; times in nanoseconds.

    `motion` is None where nobody looked whether something moves.
    """

    frame_id: int
    image: NDArray[np.uint8] = field(repr=False)
    captured_ns: int  # monotonic clock, the same for all processes of the machine
    wall_ns: int
    width: int
    height: int
    pixel_format: str
    motion: Motion | None = None
    _ring: Ring | None = field(default=None, repr=False)

    def valid(self) -> bool:
        """Whether `image` is still this frame. A copy always is; a view is until the writer comes round again.

        Ask after the pixels were used: what was made of them counts only if the answer is True.
        """
        return self._ring is None or (self._ring.intact() and self._ring.whole(self.frame_id))


@dataclass(slots=True)
class ReaderStats:
    """What became of the frames: each one since the first attach is in exactly one of the first four."""

    received: int = 0
    skipped: int = 0  # passed over for a newer one, policy "newest"
    lapped: int = 0  # overwritten before they could be read
    torn: int = 0  # overwritten while they were being copied; thrown away
    reattached: int = 0


class FrameWriter:
    """Writes the frames of one camera. For one thread; a context manager.

    Raises FrameError if the ring belongs to another live writer, if a foreign file has its name, or if the directory
    has no room for it. With `share_with_group` other users of the process' group may read the ring.
    """

    def __init__(
        self,
        camera: str,
        *,
        width: int,
        height: int,
        pixel_format: str = "bgr24",
        slots: int = 4,
        directory: Path = DIRECTORY,
        share_with_group: bool = False,
    ) -> None:
        self.path = ring_path(directory, camera)
        self._last = 0
        self._mode = GROUP_MODE if share_with_group else MODE
        layout, origin = Layout(width, height, pixel_format, slots), Origin.here(secrets.randbits(64), base=0)
        self._ring: Ring | None = create_ring(self.path, layout, origin, mode=self._mode)

    def write(
        self,
        image: NDArray[np.uint8],
        *,
        captured_ns: int | None = None,
        wall_ns: int | None = None,
        motion: Motion | None = None,
    ) -> int:
        """Copy `image` into the ring; the id of the frame, 1 for the first. The times default to now.

        Raises FrameError if shape or dtype are not the ring's (see resize).
        """
        ring = self._open()
        if image.shape != ring.layout.shape or image.dtype != np.uint8:
            found, expected = f"{image.shape} {image.dtype}", f"{ring.layout.shape} uint8"
            raise FrameError(f"frame is {found}, the ring of {self.path.name} takes {expected}: resize() first")
        frame_id = self._last + 1
        now = _now(captured_ns, wall_ns)
        np.copyto(ring.begin(frame_id), image)
        ring.commit(frame_id, *now, motion)
        self._last = frame_id
        return frame_id

    @contextmanager
    def slot(self) -> Iterator[Slot]:
        """A slot to capture straight into, committed when the block ends without an exception.

        `image` is (height, width, 3) or (height, width), writable, with the pixels of an old frame in it; it must not
        be written after the block.
        """
        ring = self._open()
        slot = Slot(self._last + 1, ring.begin(self._last + 1))
        yield slot
        ring.commit(slot.frame_id, *_now(slot.captured_ns, slot.wall_ns), slot.motion)
        self._last = slot.frame_id

    def resize(self, *, width: int, height: int, pixel_format: str | None = None) -> None:
        """Go on with frames of another size, in a new ring under the same name; ids go on, readers follow."""
        old = self._open()
        layout = Layout(width, height, pixel_format or old.layout.pixel_format, old.layout.slots)
        if layout != old.layout:
            origin = Origin.here(old.origin.stream, base=self._last)
            self._ring = create_ring(self.path, layout, origin, replaces=old, mode=self._mode)
            old.close()

    def close(self) -> None:
        """Remove the ring and tell the readers. A ring that is not this writer's any more is left alone."""
        ring, self._ring = self._ring, None
        if ring is not None:
            if ring.is_at(self.path):
                self.path.unlink(missing_ok=True)
            ring.close()

    def _open(self) -> Ring:
        if self._ring is None:
            raise FrameError(f"the writer of {self.path.name} is closed")
        if not self._ring.intact():
            raise FrameError(f"frame ring {self.path} was cut by somebody else")
        return self._ring

    def lost(self) -> bool:
        """Whether somebody removed, replaced or cut the ring, so that no reader finds it: close, and make another."""
        return self._ring is None or not (self._ring.intact() and self._ring.is_at(self.path))

    def __enter__(self) -> "FrameWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FrameReader:
    """Reads the frames of one camera, whose writer may come, go and restart at any time. For one thread.

    Policy "newest" always goes to the newest frame. "every" gives all frames in order, as far as they are still in
    the ring when it comes to them.
    """

    def __init__(
        self, camera: str, *, directory: Path = DIRECTORY, policy: Literal["newest", "every"] = "newest"
    ) -> None:
        if policy not in ("newest", "every"):
            raise FrameError(f"policy {policy!r}: allowed are newest, every")
        self.path = ring_path(directory, camera)
        self.stats = ReaderStats()
        self._every = policy == "every"
        self._ring: Ring | None = None
        self._stream: int | None = None
        self._last = 0
        self._next_check = 0.0

    def read(self, timeout: float, *, copy: bool = True) -> Frame | None:
        """The next unseen frame, waiting at most `timeout` seconds; None if none came, or there is no ring yet.

        With `copy=False` the image is a read-only view into the ring: see Frame.valid. Raises FrameError if what lies
        at the ring's name is not a ring.
        """
        deadline = time.monotonic() + timeout
        idle = 0
        while True:
            ring = self._ring or self._attach()
            if ring is None or not ring.intact():
                self._ring = None
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                time.sleep(min(left, _ATTACH_POLL_S))
                continue
            # Both are loaded before the frames are looked at, so that one that comes meanwhile is not missed.
            sequence, closed = ring.sequence, ring.closed
            frame = self._take(ring, copy)
            if frame is not None:
                return frame
            now = time.monotonic()
            if closed or self._is_abandoned(ring, now):
                self._ring = None
            elif now >= deadline:
                return None
            else:
                _futex.wait(ring.sequence_at, sequence, min(deadline - now, CHECK_S))
            idle = idle + 1 if time.monotonic() - now < _IDLE_S else 0
            if idle > _IDLE_WAKES:
                if now >= deadline:
                    return None
                time.sleep(_IDLE_S)

    def at(self, captured_at: float) -> Frame | None:
        """The frame of Unix time `captured_at`, in seconds, within half the time between two frames of the ring.

        None if it is not there (any more), or there is no ring. `read` goes on as if nothing had been asked. Raises
        FrameError as `read` does.
        """
        ring = self._ring or self._attach()
        if ring is None or not ring.intact():
            self._ring = None
            return None
        oldest = max(1, ring.newest - ring.layout.slots + 1)
        times = {}
        for frame_id in range(oldest, ring.newest + 1):
            if ring.whole(frame_id):
                wall_ns = ring.peek(frame_id)[2]
                if ring.whole(frame_id):
                    times[frame_id] = wall_ns / 1e9
        if not times:
            return None
        apart_s = (max(times.values()) - min(times.values())) / max(1, len(times) - 1)
        nearest = min(times, key=lambda frame_id: abs(times[frame_id] - captured_at))
        if not abs(times[nearest] - captured_at) <= min(max(apart_s / 2, _SAME_S), _FAR_S):  # NaN is near nothing
            return None
        return self._frame(ring, nearest, copy=True)

    def writer_alive(self) -> bool:
        """Whether a live writer has the ring now."""
        ring = self._ring or self._attach()
        return ring is not None and ring.intact() and not ring.closed and ring.origin.alive()

    def close(self) -> None:
        """Let go of the ring; views that were given out stay readable."""
        self._ring = None

    def _attach(self) -> Ring | None:
        try:
            ring = open_ring(self.path)
        except RingNotFoundError:
            return None
        if ring.closed:  # its writer lives, and is about to remove or replace it
            return None
        origin = ring.origin
        self.stats.reattached += self._stream is not None
        if origin.stream != self._stream:  # else the writer has only resized, and its ids go on
            self._last = max(origin.base, ring.newest - (ring.layout.slots if self._every else 1))
        self._stream, self._ring = origin.stream, ring
        return ring

    def _is_abandoned(self, ring: Ring, now: float) -> bool:
        if now < self._next_check:
            return False
        self._next_check = now + CHECK_S
        return not (ring.is_at(self.path) and ring.origin.alive())

    def _take(self, ring: Ring, copy: bool) -> Frame | None:
        """The frame that is due, if there is one."""
        stats = self.stats
        for _ in range(ring.layout.slots):
            newest = ring.newest
            if newest <= self._last:
                return None
            frame_id = max(self._last + 1, newest - ring.layout.slots + 1) if self._every else newest
            passed = frame_id - self._last - 1
            if self._every:
                stats.lapped += passed
            else:
                stats.skipped += passed
            self._last = frame_id
            frame = self._frame(ring, frame_id, copy)
            if frame is not None:
                stats.received += 1
                return frame
        return None

    def _frame(self, ring: Ring, frame_id: int, copy: bool) -> Frame | None:
        """Frame `frame_id`, unless the writer has come round to its slot before or during the copy."""
        if not ring.whole(frame_id):
            self.stats.lapped += 1
            return None
        image, captured_ns, wall_ns, motion = ring.peek(frame_id)
        if copy:
            image = image.copy()
        if not ring.whole(frame_id):
            self.stats.torn += 1
            return None
        layout, view_of = ring.layout, None if copy else ring
        size = (layout.width, layout.height)
        return Frame(frame_id, image, captured_ns, wall_ns, *size, layout.pixel_format, motion, view_of)

    def __enter__(self) -> "FrameReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _now(captured_ns: int | None, wall_ns: int | None) -> tuple[int, int]:
    """(captured_ns, wall_ns) with what is missing filled in: the wall time is that of the capture, not of the write."""
    if captured_ns is None:
        captured_ns = time.monotonic_ns()
    if wall_ns is None:
        wall_ns = time.time_ns() - (time.monotonic_ns() - captured_ns)
    return captured_ns, wall_ns
