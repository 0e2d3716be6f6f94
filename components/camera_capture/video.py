"""Devices, files and streams, through OpenCV."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camera_capture.camera import Camera, LocatedCamera
from camera_capture.errors import UndecodableError
from camera_capture.file_sizes import FileSizes
from camera_capture.http_address import escaped
from camera_capture.source import Source, translated
from edgeml import redact
from edgeml.errors import SourceError

if TYPE_CHECKING:
    from camera_capture.source import Image

MAX_FPS = 240.0  # files with frames at irregular times say 1000 and mean nothing


class Video(Source):
    """A file plays by its own timestamps, and is opened anew to begin again: not every file can be wound back.

    `capture` makes OpenCV's reader, from OpenCV itself.
    """

    def __init__(
        self, camera: Camera, capture: Callable[[Any], Any], *, file: Path | None = None, loop: bool = False
    ) -> None:
        self._camera, self._made, self._file, self._loop = camera, capture, file, loop
        self._shown = redact.location(camera.where)
        self.live = file is None
        self._frames = 0
        self._sizes: FileSizes | None = None
        self._capture = self._opened()

    def _opened(self) -> Any:
        import cv2

        with translated(self._camera.where):
            capture = self._made(cv2)
            if not capture.isOpened():
                capture.release()
                why = f": {trouble}" if (trouble := self._camera.trouble()) else ""
                raise SourceError(f"{self._shown}: cannot be opened as {self._camera.kind}{why}")
            fps = capture.get(cv2.CAP_PROP_FPS)
            if self._file is not None:
                self._sizes = FileSizes(self._file, capture)
        self.fps = fps if 0.1 <= fps <= MAX_FPS else 0.0
        return capture

    def grab(self) -> bool:
        if self._grabbed():
            return True
        if self.live:
            raise SourceError(f"{self._shown}: the stream ended")
        if self._frames == 0:
            raise SourceError(f"{self._shown}: no frame can be decoded (truncated or not a video)")
        if not self._loop:
            return False
        self.close()
        self._capture = self._opened()
        if not self._grabbed():
            raise SourceError(f"{self._shown}: ended after {self._frames} frames, and then gave no frame any more")
        return True

    def _grabbed(self) -> bool:
        import cv2

        with translated(self._camera.where):
            if not self._capture.grab():
                return False
            if not self.live:
                seconds = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                self.position = seconds if math.isfinite(seconds) else 0.0
        self._frames += 1
        return True

    def retrieve(self) -> "Image":
        import cv2

        with translated(self._camera.where):
            ok, image = self._capture.retrieve()
            size = self._sizes.at(self.position or 0.0) if self._sizes is not None else None
            if ok and image is not None and size is not None:
                image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        if not ok or image is None or image.size == 0:
            raise UndecodableError(f"{self._shown}: a frame cannot be decoded")
        decoded: Image = image
        return decoded

    def close(self) -> None:
        self._capture.release()
        if self._sizes is not None:
            self._sizes.close()


def by_ffmpeg(cv2: Any, camera: Camera, place: str) -> Any:
    """OpenCV's reader of a file or URL."""
    timeout_ms = int(camera.stall_timeout_s * 1000)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout_ms]
    return cv2.VideoCapture(place, cv2.CAP_FFMPEG, limits)


def streamed(camera: LocatedCamera) -> Video:
    """What is at the camera's URL. Raises SourceError."""
    url = escaped(camera.place())
    return Video(camera, lambda cv2: by_ffmpeg(cv2, camera, url))
