"""Pictures of a camera: on command and by the clock, in a bounded folder, and to S3 through the spool."""

import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from camera_capture.camera import Camera, Snapshots
from camera_capture.large import LargePictures
from edgeml.component import Context
from edgeml.errors import EdgemlError, SourceError
from edgeml.fields import check_key
from edgeml.files import write_atomic
from edgeml.frames import Frame, FrameReader
from edgeml.s3 import Uploader, literal

SNAPSHOT_TIME, SNAPSHOT_TIME_LENGTH = "%Y%m%dT%H%M%S", 15  # how the names of the files begin
SHORT = "2000/01/01/000000000000.jpg"  # a key that others ask for is at least like that
WAIT_S = 2.0  # how long a command waits for a frame


class SnapshotTaker:
    """Takes pictures of one camera. `uploader` gives None while nothing can go to S3."""

    def __init__(
        self,
        camera: str,
        settings: Snapshots,
        context: Context,
        directory: Path,
        uploader: Callable[[], Uploader | None],
        large: LargePictures | None = None,
    ) -> None:
        self._large = large
        self._camera, self._settings, self._context = camera, settings, context
        self._health = context.health.scope(f"cameras.{camera}")
        self._reader = FrameReader(camera, directory=directory)
        self._folder = Path(settings.directory) if settings.directory else context.work / "snapshots" / camera
        self._ours = re.compile(rf"\d{{8}}T\d{{6}}\.\d{{3}}Z-{re.escape(camera)}-\d+\.jpg")
        self._uploader = uploader
        self._lock = threading.Lock()  # commands and the clock share the reader
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Take pictures by the clock, if that is wanted. Raises RuntimeError where the system has no thread left."""
        if self._settings.every_s and self._thread is None:
            self._thread = self._context.spawn(f"snapshots-{self._camera}", self._by_the_clock)

    def take(self) -> tuple[Path, Frame]:
        """Write the newest frame as a JPEG. Raises SourceError when no frame comes or the folder cannot be written."""
        with self._lock:
            frame = self._newest()
            if frame is None:
                raise SourceError(f"camera {self._camera}: no frame within {WAIT_S:g} s")
            if self._large is not None and (large := self._large.at(frame.captured_ns)) is not None:
                frame = replace(large, frame_id=frame.frame_id)
            data = encode_jpeg(frame, self._settings.quality)
            moment = _moment(frame)
            stamp = f"{moment:%Y%m%dT%H%M%S}.{frame.wall_ns // 1_000_000 % 1000:03d}Z"
            path = self._folder / f"{stamp}-{self._camera}-{frame.frame_id}.jpg"
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                write_atomic(path, data)
                self._prune(path)
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                raise SourceError(f"snapshot {path}: {reason}") from error
        self._health.count("snapshots")
        return path, frame

    def _newest(self) -> Frame | None:
        deadline = time.monotonic() + WAIT_S
        while not self._stopping.is_set() and time.monotonic() < deadline:
            if (frame := self._reader.read(timeout=0.2)) is not None:
                return frame
        return None

    def ask_to_stop(self) -> None:
        """Ask for the end, and do not wait for it."""
        self._stopping.set()

    def stop(self) -> None:
        self.ask_to_stop()
        if self._thread is not None:
            self._thread.join(timeout=WAIT_S + 1)
        with self._lock:
            self._reader.close()

    def _prune(self, newest: Path) -> None:
        """Remove the oldest of this camera's own pictures; never another file, never the one just taken."""
        others = sorted(p for p in self._folder.iterdir() if self._ours.fullmatch(p.name) and p != newest)
        for old in others[: max(0, len(others) + 1 - self._settings.keep)]:
            old.unlink(missing_ok=True)

    def _by_the_clock(self) -> None:
        health = self._health.scope("snapshots")
        due = time.monotonic()
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._settings.every_s, time.monotonic())
            try:
                self._upload(*self.take())
            except (EdgemlError, OSError) as error:
                health.error(error)
                health.found("source_failed", f"no snapshot: {error}")
            else:
                health.cleared("source_failed")

    def _upload(self, path: Path, frame: Frame) -> None:
        if self._settings.s3_bucket and (uploader := self._uploader()) is not None:
            folder = literal(f"{self._settings.s3_prefix}/{self._context.thing_name}/{self._camera}")
            key = f"{folder}/{SNAPSHOT_TIME}{path.name[SNAPSHOT_TIME_LENGTH:]}"
            data = path.read_bytes()
            uploader.put(self._settings.s3_bucket, key, data, "image/jpeg", at=frame.wall_ns / 1e9)


def check_places(cameras: Mapping[str, Camera], thing: str) -> None:
    """Raises ConfigError for cameras that can never work, and for keys, once the thing's name is in them."""
    for name, camera in cameras.items():
        file = f"{thing}/{name}/20000101T000000.000Z-{name}-{2**64}.jpg"
        check_key(f"cameras.{name}.snapshots.s3_prefix", camera.snapshots.s3_prefix, file)
        if camera.stills is not None:
            check_key(f"cameras.{name}.stills.s3_prefix", camera.stills.s3_prefix, f"{thing}/{SHORT}")
        if camera.clips is not None:
            check_key(f"cameras.{name}.clips.s3_prefix", camera.clips.s3_prefix, f"{thing}/{SHORT}")
        if camera.enabled:
            camera.check(f"cameras.{name}")


def _moment(frame: Frame) -> datetime:
    """When the frame was taken. Raises SourceError for a time that no writer of ours gives."""
    try:
        return datetime.fromtimestamp(frame.wall_ns / 1e9, timezone.utc)
    except (OverflowError, ValueError, OSError) as error:
        raise SourceError(f"frame {frame.frame_id} was taken at no time that can be: {frame.wall_ns} ns") from error


def encode_jpeg(frame: Frame, quality: int) -> bytes:
    """The frame as JPEG. Raises SourceError if OpenCV cannot encode it."""
    import cv2

    try:
        image = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR) if frame.pixel_format == "rgb24" else frame.image
        ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    except (cv2.error, MemoryError) as error:
        raise SourceError(f"frame {frame.frame_id} cannot be encoded as JPEG: {error}") from error
    if not ok:
        raise SourceError(f"frame {frame.frame_id} cannot be encoded as JPEG")
    return data.tobytes()
