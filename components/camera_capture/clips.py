"""Clips of a camera: its last seconds are kept in memory as JPEGs, and made into a video when somebody asks."""

import contextlib
import dataclasses
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from camera_capture.asked import WITHIN_S, check_key, take
from camera_capture.camera import Clips
from camera_capture.clip_file import CONTENT_TYPE, SUFFIX, Kept, write
from camera_capture.snapshots import encode_jpeg
from edgeml.component import Context
from edgeml.errors import EdgemlError, RefusedError, SourceError, SpoolError
from edgeml.frames import Frame, FrameReader
from edgeml.messages import ClipCommand
from edgeml.pace import Pacer, Ration
from edgeml.s3 import Uploader

AT_ONCE, MOST = 2, 20  # of one camera: that are made, and a minute
LONGEST_S = 60.0  # before, and after
READ_S = 0.5
STOP_S = 2.0
NICE = 10  # frames and models come first
_WRITING = threading.Lock()  # one video at a time, of all cameras

Answer = Callable[[ClipCommand, Callable[[], dict[str, Any]]], None]


@dataclasses.dataclass(eq=False)
class Asked:
    """A clip in the making: of which time (monotonic), and its frames once they are all there."""

    command: ClipCommand
    from_ns: int
    until_ns: int
    frames: list[Kept] | None = None
    taken: threading.Event = dataclasses.field(default_factory=threading.Event)
    thread: threading.Thread | None = None


class ClipKeeper:
    """Keeps the frames of one camera and answers the command `clip`, when the clip waits for S3 or has failed."""

    def __init__(
        self,
        camera: str,
        settings: Clips,
        context: Context,
        directory: Path,
        uploader: Callable[[], Uploader | None],
        answer: Answer,
    ) -> None:
        self._camera, self._settings, self._context, self._directory = camera, settings, context, directory
        self._uploader, self._answer = uploader, answer
        self._health = context.health.scope(f"cameras.{camera}").scope("clips")
        self._folder = context.work / "clips" / camera
        self._ration = Ration(MOST, WITHIN_S)
        self._lock = threading.Lock()
        self._frames: deque[Kept] = deque()
        self._bytes = self._made = 0
        self._making: list[Asked] = []
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Raises RuntimeError where the system has no thread left."""
        if self._thread is None:
            shutil.rmtree(self._folder, ignore_errors=True)  # of a process that was killed
            self._thread = self._context.spawn(f"clips-{self._camera}", self._keep)

    def ask(self, command: ClipCommand) -> None:
        """Begin a clip of now; it is answered later. Raises RefusedError, SpoolError."""
        check_key(command.key, self._settings.s3_prefix, self._context.thing_name, SUFFIX)
        for name, seconds in (("before_s", command.before_s), ("after_s", command.after_s)):
            if not 0 <= seconds <= LONGEST_S:
                raise RefusedError(f"{name}: expected 0 to {LONGEST_S:g}, found {seconds}")
        if self._uploader() is None:
            raise SpoolError("nothing can be kept for S3 now")
        now = time.monotonic_ns()
        asked = Asked(command, now - int(command.before_s * 1e9), now + int(command.after_s * 1e9))
        with self._lock:
            if len(self._making) >= AT_ONCE:
                raise RefusedError(f"{AT_ONCE} clips are being made already")
            take(self._ration, "clips")
            self._making.append(asked)
        try:
            asked.thread = self._context.spawn(f"clip-{self._camera}", lambda: self._make(asked), again=False)
        except BaseException:
            with self._lock:
                self._making.remove(asked)
            raise

    def ask_to_stop(self) -> None:
        """Ask for the end, and do not wait for it."""
        self._stopping.set()
        with self._lock:
            for asked in self._making:
                asked.taken.set()

    def stop(self) -> None:
        """Clips in the making are lost, and answered so."""
        self.ask_to_stop()
        with self._lock:
            threads = [self._thread, *(asked.thread for asked in self._making)]
        until = time.monotonic() + STOP_S
        for thread in threads:
            if thread is not None:
                thread.join(timeout=max(0.0, until - time.monotonic()))
        with self._lock:
            self._frames.clear()

    def _keep(self) -> None:
        pacer = Pacer(1 / self._settings.fps)
        with FrameReader(self._camera, directory=self._directory) as reader:
            while not self._stopping.wait(pacer.wait_s()):
                try:
                    frame = reader.read(READ_S, copy=False)
                    if frame is not None:
                        pacer.took()
                        kept = Kept(frame.captured_ns, frame.wall_ns, self._jpeg(frame))
                        if frame.valid():
                            self._add(kept)
                        self._health.well()
                except EdgemlError as error:
                    self._health.failed(error)
                    self._stopping.wait(1.0)
                self._forget(time.monotonic_ns())

    def _jpeg(self, frame: Frame) -> bytes:
        import cv2

        scale = self._settings.max_side / max(frame.width, frame.height)
        if scale < 1:
            size = max(2, round(frame.width * scale)), max(2, round(frame.height * scale))
            image: Any = cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA)
            frame = dataclasses.replace(frame, image=image)
        return encode_jpeg(frame, self._settings.quality)

    def _add(self, kept: Kept) -> None:
        """Where the memory that is allowed is full, a clip that needs the oldest frame ends now."""
        with self._lock:
            self._frames.append(kept)
            self._bytes += len(kept.data)
            while self._bytes > self._settings.max_bytes:
                for asked in self._making:
                    if asked.from_ns <= self._frames[0].captured_ns:
                        self._take(asked)
                self._bytes -= len(self._frames.popleft().data)

    def _forget(self, now_ns: int) -> None:
        with self._lock:
            wanted = [asked.from_ns for asked in self._making if asked.frames is None]
            oldest = min([now_ns - int(self._settings.before_s * 1e9), *wanted])
            while self._frames and self._frames[0].captured_ns < oldest:
                self._bytes -= len(self._frames.popleft().data)

    def _take(self, asked: Asked) -> list[Kept]:
        """The frames of a clip, as far as they are there. The lock is held."""
        if asked.frames is None:
            asked.frames = [one for one in self._frames if asked.from_ns <= one.captured_ns <= asked.until_ns]
            asked.taken.set()
        return asked.frames

    def _make(self, asked: Asked) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        try:
            self._answer(asked.command, lambda: self._sent(asked))
        finally:
            with self._lock:
                self._making.remove(asked)

    def _sent(self, asked: Asked) -> dict[str, Any]:
        """What is answered once the clip waits for S3."""
        asked.taken.wait(max(0.0, asked.until_ns / 1e9 - time.monotonic()))
        with self._lock:
            frames = self._take(asked)
        while not _WRITING.acquire(timeout=0.1):
            self._check_running()
        try:
            self._check_running()
            if not frames:
                raise SourceError(f"camera {self._camera}: no frame of that time was kept")
            seconds = self._uploaded(asked.command.key, frames)
        finally:
            _WRITING.release()
        self._health.count("sent")
        return {"captured_at": frames[0].wall_ns / 1e9, "seconds": round(seconds, 3)}

    def _check_running(self) -> None:
        if self._stopping.is_set():
            raise SourceError(f"camera {self._camera} is stopped or changed: the clip is lost")

    def _uploaded(self, key: str, frames: list[Kept]) -> float:
        settings, uploader = self._settings, self._uploader()
        if uploader is None:
            raise SpoolError("nothing can be kept for S3 now")
        self._made += 1
        path = self._folder / f"{self._made}{SUFFIX}"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if shutil.disk_usage(self._folder).free < 2 * settings.max_bytes:  # the file, and its copy in the spool
                raise SourceError(f"{self._folder}: the disk has no room for {2 * settings.max_bytes} bytes")
            is_over = self._stopping.is_set
            seconds = write(path, frames, settings.fps, max_bytes=settings.max_bytes, is_over=is_over)
            uploader.put(settings.s3_bucket, key, path.read_bytes(), CONTENT_TYPE)
        except OSError as error:
            raise SourceError(f"clip {path}: {error.strerror or error}") from error
        finally:
            path.unlink(missing_ok=True)
        return seconds
