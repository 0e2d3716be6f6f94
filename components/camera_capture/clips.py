"""Clips of a camera: its last seconds are kept in memory, and made into a video when somebody asks.

Where a camera sends packets they are kept as they come, and a clip is a copy of them, unless something is to be hidden
in it. Of other cameras frames are kept, as JPEGs.
"""

import contextlib
import dataclasses
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camera_capture import clip_file
from camera_capture.asked import WITHIN_S, check_key, take
from camera_capture.camera import Camera, Clips
from camera_capture.clip_file import CONTENT_TYPE, SUFFIX
from camera_capture.clip_store import ClipStore
from camera_capture.kept_frames import KeptFrames
from camera_capture.preroll import Preroll, Track, Unit
from camera_capture.privacy import PrivacyMasks
from edgeml import pictures
from edgeml.component import Context
from edgeml.errors import EdgemlError, RefusedError, SourceError, SpoolError
from edgeml.frames import FrameReader
from edgeml.log import kv
from edgeml.messages import ClipCommand
from edgeml.pace import Pacer, Ration
from edgeml.s3 import Uploader

if TYPE_CHECKING:
    from camera_capture.source import Image

log = logging.getLogger(__name__)

AT_ONCE, MOST = 2, 20  # of one camera: that are made, and a minute
LONGEST_S = 60.0  # before, and after
READ_S = 0.5
LOOK_S = 0.2  # how often it is looked for new packets
LATE_S = 1.0  # how long it is waited for packets of the last moment
STOP_S = 2.0
TIDY_S = 60.0
NICE = 10  # frames and models come first
_WRITING = threading.Lock()  # one video is encoded at a time, of all cameras

Answer = Callable[[ClipCommand, Callable[[], dict[str, Any]]], None]


@dataclasses.dataclass(eq=False)
class Asked:
    """A clip in the making: of which time, monotonic."""

    command: ClipCommand
    from_ns: int
    until_ns: int
    thread: threading.Thread | None = None


class ClipKeeper:
    """Keeps the last seconds of one camera and answers the command `clip`, when the clip is kept or has failed."""

    def __init__(
        self,
        name: str,
        camera: Camera,
        preroll: Preroll,
        context: Context,
        directory: Path,
        uploader: Callable[[], Uploader | None],
        answer: Answer,
    ) -> None:
        self._settings = settings = camera.clips or Clips()
        self._camera, self._preroll, self._masks = name, preroll, camera.privacy_masks
        self._context, self._directory = context, directory
        self._uploader, self._answer = uploader, answer
        self._health = context.health.scope(f"cameras.{name}").scope("clips")
        folder = Path(settings.directory) if settings.directory else context.work / "clips" / name
        self._store = ClipStore(folder, name, settings.keep_bytes, settings.keep_days)
        self._ration = Ration(MOST, WITHIN_S)
        self._lock = threading.Lock()
        self._frames = KeptFrames(settings)
        self._making: list[Asked] = []
        self._silenced: set[str] = set()  # codecs of sound of which it has been told that clips lack them
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Raises RuntimeError where the system has no thread left."""
        self._health.gauge("kept_bytes", lambda: float(self._preroll.size + self._frames.size))
        if self._thread is None:
            self._thread = self._context.spawn(f"clips-{self._camera}", self._keep)

    def ask(self, command: ClipCommand) -> None:
        """Begin a clip of now; it is answered later. Raises RefusedError, SpoolError."""
        check_key(command.key, self._settings.s3_prefix, self._context.thing_name, SUFFIX)
        for name, seconds in (("before_s", command.before_s), ("after_s", command.after_s)):
            if not 0 <= seconds <= LONGEST_S:
                raise RefusedError(f"{name}: expected 0 to {LONGEST_S:g}, found {seconds}")
        if self._settings.s3_bucket and self._uploader() is None:
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
        self._frames.close()

    def stop(self) -> None:
        """Clips that are copied end now; those that would be encoded are lost, and answered so."""
        self.ask_to_stop()
        with self._lock:
            threads = [self._thread, *(asked.thread for asked in self._making)]
        until = time.monotonic() + STOP_S
        for thread in threads:
            if thread is not None:
                thread.join(timeout=max(0.0, until - time.monotonic()))

    def _keep(self) -> None:
        pacer, tidy = Pacer(1 / self._settings.fps), Pacer(TIDY_S)
        self._rescue()
        with FrameReader(self._camera, directory=self._directory) as reader:
            while not self._stopping.wait(pacer.wait_s()):
                try:
                    frame = None
                    if self._preroll.codec:
                        pacer.took()
                    else:
                        frame = reader.read(READ_S, copy=False)
                    if frame is not None:
                        pacer.took()
                        self._frames.add(frame)
                    if tidy.take():
                        self._store.prune()
                    self._health.well()
                except (EdgemlError, OSError) as error:
                    self._health.failed(error)
                    self._stopping.wait(1.0)
                self._frames.forget()

    def _rescue(self) -> None:
        """What a process that was killed has written of clips is delivered."""
        try:
            left = self._store.left()
        except (EdgemlError, OSError) as error:
            self._health.failed(error)
            return
        for part, rest in left:
            try:
                self._deliver(part, f"{self._settings.s3_prefix}/{self._context.thing_name}/{rest}")
                self._health.count("rescued")
            except (EdgemlError, OSError) as error:  # it is still there at the next start
                self._health.failed(error)

    def _make(self, asked: Asked) -> None:
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        try:
            self._answer(asked.command, lambda: self._made(asked))
        finally:
            with self._lock:
                self._making.remove(asked)

    def _made(self, asked: Asked) -> dict[str, Any]:
        """What is answered once the clip is kept, or waits for S3."""
        settings, key = self._settings, asked.command.key
        rest = key.removeprefix(f"{settings.s3_prefix}/{self._context.thing_name}/")
        try:
            with self._store.begin(rest, 2 * settings.max_bytes) as part:  # the file, and its copy in the spool
                first_ns, seconds = self._written(asked, part)
                path = self._deliver(part, key)
        except OSError as error:
            raise SourceError(f"clip {key}: {error.strerror or error}") from error
        self._health.count("sent" if settings.s3_bucket else "kept")
        wall_ns = time.time_ns() - (time.monotonic_ns() - first_ns)
        return {"captured_at": wall_ns / 1e9, "seconds": round(seconds, 3), "path": path}

    def _deliver(self, part: Path, key: str) -> str:
        """To S3, and to the clips that are kept; where it is then. Raises SpoolError, OSError."""
        settings = self._settings
        if settings.s3_bucket:
            uploader = self._uploader()
            if uploader is None:
                raise SpoolError("nothing can be kept for S3 now")
            uploader.put(settings.s3_bucket, key, part.read_bytes(), CONTENT_TYPE)
        if self._store.keeps:
            return str(self._store.keep(part))
        part.unlink()
        return ""

    def _written(self, asked: Asked, part: Path) -> tuple[int, float]:
        """When the clip begins (ns), and the seconds that it covers. Raises SourceError."""
        settings, units = self._settings, self._preroll.since(asked.from_ns)
        if units and not self._masks and clip_file.holds(units[0].track):
            tracks = [track for track in dict.fromkeys(unit.track for unit in units) if self._fits(track)]
            coming = self._coming(units, asked.until_ns)
            return units[0].captured_ns, clip_file.copied(part, tracks, coming, settings.max_bytes)
        if units:
            return self._encoded(part, self._decoded(list(self._bounded(self._coming(units, asked.until_ns)))))
        wish = self._frames.wish(asked.from_ns, asked.until_ns)
        wish.granted.wait(max(0.0, 0 if self._stopping.is_set() else asked.until_ns / 1e9 - time.monotonic()))
        frames = self._frames.grant(wish)
        return self._encoded(part, ((one.captured_ns, pictures.decoded(one.data, "kept frame")) for one in frames))

    def _coming(self, units: list[Unit], until_ns: int) -> Iterator[Unit]:
        """`units` and what follows them, until that moment, the end of the connection, or ours."""
        number = units[-1].number
        while True:
            for unit in units:
                if unit.captured_ns > until_ns:
                    return
                yield unit
            if self._stopping.wait(LOOK_S) or time.monotonic_ns() > until_ns + LATE_S * 1e9:
                return
            if (more := self._preroll.after(number)) is None:
                return
            units, number = more, more[-1].number if more else number

    def _fits(self, track: Track) -> bool:
        """Whether MP4 holds it, as it must the picture; what it does not is told once."""
        if track.kind == "video" or clip_file.holds(track):
            return True
        if track.codec not in self._silenced:
            self._silenced.add(track.codec)
            log.warning("clips have no sound %s", kv(camera=self._camera, codec=track.codec))
        return False

    def _bounded(self, units: Iterator[Unit]) -> Iterator[Unit]:
        size = 0
        for unit in units:
            size += unit.size
            if size > self._settings.max_bytes:
                return
            if unit.track.kind == "video":
                yield unit

    def _decoded(self, units: list[Unit]) -> "Iterator[tuple[int, Image]]":
        """Pictures as often as they are wanted, with nothing in them that is to be hidden."""
        masks, due_ns, step_ns = PrivacyMasks(self._masks), 0, 1e9 / self._settings.fps
        for captured_ns, frame in clip_file.decoded(units):
            if captured_ns >= due_ns:
                due_ns = int(max(due_ns + step_ns, captured_ns + step_ns / 2))
                yield captured_ns, masks.applied(clip_file.bgr(frame))

    def _encoded(self, part: Path, images: "Iterable[tuple[int, Image]]") -> tuple[int, float]:
        settings = self._settings
        while not _WRITING.acquire(timeout=0.1):
            self._check_running()
        try:
            self._check_running()
            images = self._running(images)
            if (first := next(images, None)) is None:
                raise SourceError(f"camera {self._camera}: no frame of that time was kept")
            images = itertools.chain([first], images)
            return first[0], clip_file.encoded(part, images, settings.fps, settings.max_side, settings.max_bytes)
        finally:
            _WRITING.release()

    def _running(self, images: "Iterable[tuple[int, Image]]") -> "Iterator[tuple[int, Image]]":
        for one in images:
            self._check_running()
            yield one

    def _check_running(self) -> None:
        if self._stopping.is_set():
            raise SourceError(f"camera {self._camera} is stopped or changed: the clip is lost")
