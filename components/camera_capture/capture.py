"""One camera: opens its source, writes its frames into a ring, and starts over when the source ends, fails or hangs.

Reads happen on a thread of their own, because a driver can block for ever and a thread cannot be killed. A
supervisor watches it: an attempt that shows no sign of life for `stall_timeout_s` is abandoned (it may never touch
the ring again, and closes its source if the driver ever comes back) and the next attempt begins.
"""

import logging
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from camera_capture.config import Camera
from camera_capture.sources import Source, open_source, redacted
from edgeml.component import Context
from edgeml.errors import EdgemlError, SourceError
from edgeml.frames import FrameWriter
from edgeml.log import kv
from edgeml.messages import FrameReady

if TYPE_CHECKING:
    from camera_capture.sources import Image

log = logging.getLogger(__name__)

MAX_ABANDONED = 3  # hung reads of one camera, before a restart of the process is the only way to be rid of them

FOREIGN = (OSError, ValueError, cv2.error)  # what drivers, files and pipelines raise

Announce = Callable[[FrameReady], None]


class CameraWorker:
    """Runs one camera until `stop`. `announce` gets a FrameReady for each frame that is to be told of."""

    def __init__(self, name: str, camera: Camera, context: Context, directory: Path, announce: Announce) -> None:
        self.name, self.camera = name, camera
        self.context, self.announce = context, announce
        self._directory = directory
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # the ring, and which attempt may write to it
        self._writer: FrameWriter | None = None
        self._attempt: _Attempt | None = None
        self._abandoned: list[_Attempt] = []
        context.health.gauge(f"cameras.{name}.hung_reads", lambda: float(sum(a.is_alive() for a in self._abandoned)))
        self._thread = context.spawn(f"camera-{name}", self._supervise)

    def halt(self) -> None:
        """Ask for the end, and do not wait for it."""
        self._stopping.set()

    def stop(self) -> None:
        """Release source and ring. Returns soon even when a read hangs."""
        self.halt()
        self._thread.join(timeout=2)
        with self._lock:
            if self._writer is not None:
                self._writer.close()
                self._writer = None
        self.context.health.forget(f"cameras.{self.name}")

    def put(self, attempt: "_Attempt", image: "Image", captured_ns: int) -> bool:
        """Write a frame, unless `attempt` was abandoned: then False."""
        with self._lock:
            if attempt is not self._attempt or self._stopping.is_set():
                return False
            height, width = image.shape[:2]
            if self._writer is None:
                self._writer = FrameWriter(
                    self.name,
                    width=width,
                    height=height,
                    pixel_format=self.camera.pixel_format,
                    slots=self.camera.slots,
                    directory=self._directory,
                )
            self._writer.resize(width=width, height=height)  # does nothing for an unchanged size
            wall_ns = time.time_ns() - (time.monotonic_ns() - captured_ns)
            frame_id = self._writer.write(image, captured_ns=captured_ns, wall_ns=wall_ns)
        every = self.camera.announce_every
        if every and frame_id % every == 0:
            self.announce(
                FrameReady(
                    camera=self.name,
                    frame_id=frame_id,
                    width=width,
                    height=height,
                    pixel_format=self.camera.pixel_format,
                    captured_at=wall_ns / 1e9,
                )
            )
        return True

    def _supervise(self) -> None:
        health, prefix = self.context.health, f"cameras.{self.name}"
        failures = 0
        while not self._stopping.is_set():
            attempt = self._begin()
            self._watch(attempt)
            if self._stopping.is_set():
                break
            if attempt.ended:
                health.note(prefix, "ended")
                log.info("source ended %s", kv(camera=self.name))
                self._stopping.wait()
                break
            failures = 1 if attempt.frames else failures + 1
            pause = min(self.camera.reconnect_max_s, self.camera.reconnect_min_s * 2 ** min(failures - 1, 16))
            pause *= random.uniform(0.5, 1.0)  # noqa: S311  (jitter)
            health.count(f"{prefix}.reconnects")
            health.note(prefix, f"reconnecting: {attempt.error}")
            health.error(f"camera {self.name}: {attempt.error}")
            log.warning("source lost %s", kv(camera=self.name, error=attempt.error, retry_in_s=pause))
            self._stopping.wait(pause)
        self._abandon()

    def _begin(self) -> "_Attempt":
        with self._lock:
            self._attempt = attempt = _Attempt(self)
        attempt.start()
        return attempt

    def _watch(self, attempt: "_Attempt") -> None:
        limit = self.camera.stall_timeout_s
        # Opening may take the driver's own timeout and a little more.
        while attempt.is_alive() and not self._stopping.is_set():
            attempt.join(timeout=min(0.1, limit / 4))
            silent = time.monotonic() - attempt.sign_of_life
            if attempt.is_alive() and silent > limit * (1 if attempt.frames else 2):
                attempt.error = f"no frame for {silent:.1f} s, the read hangs"
                self._abandon()
                self._abandoned.append(attempt)
                self._abandoned = [hung for hung in self._abandoned if hung.is_alive()]
                if len(self._abandoned) >= MAX_ABANDONED:
                    # The one error of a camera that ends the process: nothing else is rid of threads in a driver.
                    hung = f"camera {self.name}: {len(self._abandoned)} reads hang in the driver"
                    self.context.fail(SourceError(hung))
                    self._stopping.wait()
                return

    def _abandon(self) -> None:
        with self._lock:
            attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()


class _Attempt(threading.Thread):
    """Opens the source once and reads it until it ends, fails, or the worker takes its right to write away."""

    def __init__(self, worker: CameraWorker) -> None:
        super().__init__(name=f"read-{worker.name}", daemon=True)
        self._worker = worker
        self.sign_of_life = time.monotonic()
        self.frames = 0
        self.ended = False
        self.error = ""
        self._source: Source | None = None

    def cancel(self) -> None:
        """Wake a waiting read, where the source can be woken. The right to write must be gone already."""
        if self._source is not None:
            self._source.cancel()

    def run(self) -> None:
        try:
            source = self._source = open_source(self._worker.camera)
        except (EdgemlError, *FOREIGN) as error:
            self.error = described(error)
            return
        try:
            self._read(source)
        except (EdgemlError, *FOREIGN) as error:
            self.error = self.error or described(error)
        finally:
            source.close()

    def _read(self, source: Source) -> None:
        worker, camera = self._worker, self._worker.camera
        health, prefix = worker.context.health, f"cameras.{worker.name}"
        log.info("source open %s", kv(camera=worker.name, type=camera.type, location=redacted(str(camera.location))))
        health.note(prefix, "")
        pace = _Pace(camera.fps if source.live else camera.fps or source.fps, live=source.live)
        while worker._attempt is self:
            self.sign_of_life = time.monotonic() + pace.ahead()  # our own waiting is no hang
            pace.wait(worker._stopping)
            self.sign_of_life = time.monotonic()
            if not source.grab():
                self.ended = True
                return
            captured_ns = time.monotonic_ns()
            self.sign_of_life = time.monotonic()
            if not pace.due():
                health.count(f"{prefix}.dropped")
                continue
            image = _shaped(source.retrieve(), camera)
            if not worker.put(self, image, captured_ns):
                return
            self.frames += 1
            health.count(f"{prefix}.captured")
            health.observe(f"{prefix}.write", (time.monotonic_ns() - captured_ns) / 1e9)


def described(error: Exception) -> str:
    return str(error) if isinstance(error, EdgemlError) else f"{type(error).__name__}: {error}"


class _Pace:
    """Keeps a rate: files are waited for, live sources are thinned out. A rate of 0 lets everything through."""

    def __init__(self, fps: float, *, live: bool) -> None:
        self._interval = 1 / fps if fps > 0 else 0.0
        self._live = live
        self._next = time.monotonic()

    def ahead(self) -> float:
        """Seconds until the next frame is due."""
        return 0.0 if self._live or not self._interval else max(0.0, self._next - time.monotonic())

    def wait(self, stopping: threading.Event) -> None:
        if self._live or not self._interval:
            return
        ahead = self._next - time.monotonic()
        if ahead > 0:
            stopping.wait(ahead)
        elif ahead < -1:  # far behind (a suspended machine): do not race to catch up
            self._next = time.monotonic()
        self._next += self._interval

    def due(self) -> bool:
        if not self._live or not self._interval:
            return True
        now = time.monotonic()
        # Half an interval of tolerance: a 30 fps camera thinned to 15 must not lose a frame to jitter.
        if now < self._next - self._interval / 2:
            return False
        self._next = max(self._next + self._interval, now)
        return True


def _shaped(image: "Image", camera: Camera) -> "Image":
    """`image` in the size and pixel format of the ring."""
    height, width = image.shape[:2]
    wanted = (camera.width or width, camera.height or height)
    if wanted != (width, height):
        image = cv2.resize(image, wanted, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    if camera.pixel_format == "gray8" and image.ndim == 3:
        return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)  # type: ignore[return-value]
    if camera.pixel_format != "gray8" and image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)  # type: ignore[assignment]
    if camera.pixel_format == "rgb24":
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]
    return image
