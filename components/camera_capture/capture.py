"""One camera: opens its source, writes its frames into a ring, and starts over when the source ends, fails or hangs.

A supervisor watches each attempt: one that shows no sign of life for `stall_timeout_s` is abandoned (it may never
touch the ring again, and closes its source if the driver ever comes back) and the next attempt begins.
"""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from camera_capture.attempt import Attempt
from camera_capture.camera import Camera, NetworkCamera
from camera_capture.motion import MotionDetector
from camera_capture.passwords import Password, Passwords
from camera_capture.preroll import Preroll
from camera_capture.recorder import Recorder
from camera_capture.watch import MotionWatch
from edgeml.backoff import Backoff
from edgeml.component import Context
from edgeml.errors import FrameError, SourceError
from edgeml.frames import FrameWriter
from edgeml.log import kv
from edgeml.messages import CameraMotion, FrameReady

if TYPE_CHECKING:
    from camera_capture.preroll import Tap
    from camera_capture.source import Image

log = logging.getLogger(__name__)

MAX_ABANDONED = 3  # hung reads of one camera, before it waits for one of them to come back
PASSWORD_WAIT_S = 2.0
LOOK_S = 1.0  # how often it is looked whether the ring is still there

Announce = Callable[[FrameReady | CameraMotion], None]


class CameraWorker:
    """Runs one camera from `start` until `stop`. `announce` gets a FrameReady for each frame that is to be told
    of, and a CameraMotion when motion begins and ends.

    `is_alone` says whether no other camera delivers: then, and only then, a new process is the cure for hung reads.
    """

    def __init__(
        self,
        name: str,
        camera: Camera,
        context: Context,
        directory: Path,
        announce: Announce,
        is_alone: Callable[[], bool] = lambda: True,
        *,
        share_with_group: bool = False,
        passwords: Passwords | None = None,
        preroll: Preroll | None = None,
    ) -> None:
        self.name, self.camera = name, camera
        self.context, self.announce = context, announce
        self.stopping = threading.Event()
        self.delivered_at = 0.0  # monotonic
        self._is_alone = is_alone
        self._passwords = passwords or Passwords(context)
        large = camera.large() if isinstance(camera, NetworkCamera) else None
        self._recorder: Recorder | None = None
        self._preroll = preroll if large is None else None
        if large is not None and preroll is not None:
            self._recorder = Recorder(name, large, preroll, context, self._passwords)
        self._directory, self._share = directory, share_with_group
        self.health = context.health.scope(f"cameras.{name}")
        self._lock = threading.Lock()  # the ring, and which attempt may write to it
        self._writer: FrameWriter | None = None
        self._size = (0, 0)
        self._motion: MotionWatch | None = None
        if camera.motion is not None:
            detector = MotionDetector(camera.motion, camera.pixel_format, camera.privacy_masks)
            self._motion = MotionWatch(name, detector, self.health, announce)
        self._next_look = 0.0
        self._attempt: Attempt | None = None
        self._abandoned: list[Attempt] = []
        self._known_fault: object = None
        self._backoff = Backoff(camera.reconnect_min_s, camera.reconnect_max_s, camera.reconnect_min_s / 2)
        self._pause = 0.0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Raises RuntimeError where the system has no thread left."""
        self.health.gauge("hung_reads", lambda: float(sum(a.is_alive() for a in self._abandoned)))
        if self._motion is not None:
            self._motion.start()
        if self._recorder is not None:
            self._recorder.start()
        if self._thread is None:
            self._thread = self.context.spawn(f"camera-{self.name}", self._supervise)

    def ask_to_stop(self) -> None:
        """Ask for the end, and do not wait for it."""
        self.stopping.set()
        if self._recorder is not None:
            self._recorder.ask_to_stop()

    def stop(self) -> None:
        """Release source and ring. Returns soon even when a read hangs."""
        self.ask_to_stop()
        if self._thread is not None:
            self._thread.join(timeout=2)
        with self._lock:
            self._drop_ring()
        if self._preroll is not None:
            self._preroll.close()
        if self._recorder is not None:
            self._recorder.stop()
        self.health.forget()

    def password(self, reference: Password) -> str:
        """The password of its user. Raises SourceError where none is known, which is soon told."""
        return self._passwords.get(reference, min(PASSWORD_WAIT_S, self.camera.stall_timeout_s))

    def tap(self) -> "Tap | None":
        """Who takes the packets of a source that is opened now."""
        return self._preroll.tap() if self._preroll is not None else None

    def is_current(self, attempt: Attempt) -> bool:
        return self._attempt is attempt

    def put(self, attempt: Attempt, image: "Image", captured_ns: int) -> bool:
        """Write a frame, unless `attempt` was abandoned: then False. Raises FrameError; the ring is then made anew."""
        height, width = image.shape[:2]
        with self._lock:
            if attempt is not self._attempt or self.stopping.is_set():
                return False
            wall_ns = time.time_ns() - (time.monotonic_ns() - captured_ns)
            motion = self._motion.look(image, captured_ns) if self._motion else None
            try:
                ring = self._ring(width, height)
                frame_id = ring.write(image, captured_ns=captured_ns, wall_ns=wall_ns, motion=motion)
            except FrameError:
                self._drop_ring()
                raise
        self.delivered_at = time.monotonic()
        if self._motion is not None and motion is not None:
            self._motion.tell(motion, wall_ns)
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

    def _ring(self, width: int, height: int) -> FrameWriter:
        """The ring for frames of this size. It is made anew for another one, and when somebody removed it."""
        now = time.monotonic()
        if self._writer is not None and now >= self._next_look:
            self._next_look = now + LOOK_S
            if self._writer.lost():
                log.warning("ring is gone, another is made %s", kv(camera=self.name, path=self._writer.path))
                self._drop_ring()
        if self._writer is None:
            self._writer = FrameWriter(
                self.name,
                width=width,
                height=height,
                pixel_format=self.camera.pixel_format,
                slots=self.camera.slots,
                directory=self._directory,
                share_with_group=self._share,
            )
            self._size = (width, height)
        if self._size != (width, height):
            log.info("frame size changed %s", kv(camera=self.name, width=width, height=height))
            self._writer.resize(width=width, height=height)
            self._size = (width, height)
        return self._writer

    def _drop_ring(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _supervise(self) -> None:
        try:
            while not self.stopping.is_set():
                if not self._has_room():
                    self.stopping.wait(1.0)
                    continue
                attempt = self._begin()
                self._watch(attempt)
                if self._motion is not None:
                    self._motion.end(time.time_ns())
                if self.stopping.is_set():
                    break
                if attempt.ended:
                    self.health.note("ended")
                    log.info("source ended %s", kv(camera=self.name))
                    self.stopping.wait()
                    break
                self._failed(attempt)
                self.stopping.wait(self._pause)
        finally:
            if (last := self._abandon()) is not None:
                last.join(timeout=1)  # its children and descriptors go with it, unless it hangs

    def _failed(self, attempt: Attempt) -> None:
        """Tell, and find the pause until the next attempt: short after one that held longer than its pause."""
        if attempt.frames and time.monotonic() - attempt.began > self._pause:
            self._backoff.reset()
        self._pause = self._backoff.next()
        self.health.count("reconnects")
        self.health.note(f"reconnecting: {attempt.error}")
        self.health.error(f"camera {self.name}: {attempt.error}")
        self.health.found("source_failed", attempt.error)
        error = attempt.unexpected
        fault = None if error is None else (type(error), str(error)[:100])
        if error is not None and fault != self._known_fault:
            log.error("source failed unexpectedly %s", kv(camera=self.name, error=attempt.error), exc_info=error)
        self._known_fault = fault

    def _begin(self) -> Attempt:
        with self._lock:
            self._attempt = attempt = Attempt(self)
        attempt.start()
        return attempt

    def _watch(self, attempt: Attempt) -> None:
        limit = self.camera.stall_timeout_s
        # Opening may take the driver's own timeout and a little more.
        while attempt.is_alive() and not self.stopping.is_set():
            attempt.join(timeout=min(0.1, limit / 4))
            allowed = limit * (1 if attempt.frames else 2)
            if attempt.is_alive() and attempt.silent_s() > allowed:
                attempt.error = f"no frame for {allowed:g} s, the read hangs"
                self._abandon()
                self._abandoned.append(attempt)
                return

    def _has_room(self) -> bool:
        """Whether another attempt may begin, or too many hang in the driver already.

        Nothing but a new process is rid of such threads; but other cameras are not ended for that.
        """
        self._abandoned = [attempt for attempt in self._abandoned if attempt.is_alive()]
        if len(self._abandoned) < MAX_ABANDONED:
            return True
        text = f"{len(self._abandoned)} reads hang in the driver; waiting until one returns"
        self.health.found("source_failed", text)
        if self._is_alone():
            self.context.fail(SourceError(f"camera {self.name}: {len(self._abandoned)} reads hang in the driver"))
            self.stopping.wait()
        return False

    def _abandon(self) -> Attempt | None:
        """Take its right to write from the attempt, if there is one, and wake it."""
        with self._lock:
            attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()
        return attempt
