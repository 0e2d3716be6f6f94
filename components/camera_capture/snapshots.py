"""Pictures of a camera: on command and by the clock, in a bounded folder, and to S3 through the spool."""

import logging
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from camera_capture.config import Snapshots
from edgeml.component import Context
from edgeml.errors import EdgemlError, SourceError
from edgeml.files import write_atomic
from edgeml.frames import Frame, FrameReader
from edgeml.log import kv
from edgeml.s3 import Uploader

log = logging.getLogger(__name__)

WAIT_S = 2.0  # how long a command waits for a frame


class SnapshotTaker:
    """Takes pictures of one camera. `uploader` is None when nothing goes to S3."""

    def __init__(
        self, camera: str, settings: Snapshots, context: Context, directory: Path, uploader: Uploader | None
    ) -> None:
        self._camera, self._settings, self._context = camera, settings, context
        self._reader = FrameReader(camera, directory=directory)
        self._folder = Path(settings.directory) if settings.directory else context.work / "snapshots" / camera
        self._uploader = uploader
        self._lock = threading.Lock()  # commands and the clock share the reader
        self._stopping = threading.Event()
        self._thread = context.spawn(f"snapshots-{camera}", self._by_the_clock) if settings.every_s else None

    def take(self) -> tuple[Path, Frame]:
        """Write the newest frame as a JPEG. Raises SourceError when no frame comes or the folder cannot be written."""
        with self._lock:
            frame = self._reader.read(timeout=WAIT_S)
            if frame is None:
                raise SourceError(f"camera {self._camera}: no frame within {WAIT_S:g} s")
            data = encode_jpeg(frame, self._settings.quality)
            moment = datetime.fromtimestamp(frame.wall_ns / 1e9, UTC)
            path = (
                self._folder / f"{moment:%Y%m%dT%H%M%S}.{frame.wall_ns // 1_000_000 % 1000:03d}Z-{frame.frame_id}.jpg"
            )
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                write_atomic(path, data)
                self._prune()
            except OSError as error:
                raise SourceError(f"snapshot {path}: {error.strerror}") from error
        self._context.health.count(f"cameras.{self._camera}.snapshots")
        return path, frame

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=WAIT_S + 1)
        with self._lock:
            self._reader.close()

    def _prune(self) -> None:
        pictures = sorted(self._folder.glob("*-*.jpg"))
        for old in pictures[: -self._settings.keep]:
            old.unlink(missing_ok=True)

    def _by_the_clock(self) -> None:
        due = time.monotonic()
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._settings.every_s, time.monotonic())
            try:
                path, _ = self.take()
                if self._uploader is not None and self._settings.s3_bucket:
                    key = f"{self._settings.s3_prefix}/{self._context.thing_name}/{self._camera}/{path.name}"
                    self._uploader.put(self._settings.s3_bucket, key, path.read_bytes(), "image/jpeg")
            except (EdgemlError, OSError) as error:
                self._context.health.error(error)
                log.warning("no snapshot %s", kv(camera=self._camera, error=error))


def encode_jpeg(frame: Frame, quality: int) -> bytes:
    """The frame as JPEG. Raises SourceError if OpenCV cannot encode it."""
    import cv2

    image = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR) if frame.pixel_format == "rgb24" else frame.image
    ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise SourceError(f"frame {frame.frame_id} cannot be encoded as JPEG")
    return data.tobytes()
