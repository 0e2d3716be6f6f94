"""Devices, files and streams, through OpenCV."""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camera_capture.config import Camera
from camera_capture.file_sizes import FileSizes
from camera_capture.http_address import escaped
from camera_capture.source import Source, UndecodableError, location_of, translated
from edgeml import redact
from edgeml.errors import SourceError

if TYPE_CHECKING:
    from camera_capture.source import Image

MAX_FPS = 240.0  # files with frames at irregular times say 1000 and mean nothing


class Video(Source):
    """A file plays by its own timestamps, and is opened anew to begin again: not every file can be wound back."""

    def __init__(self, camera: Camera) -> None:
        self._camera = camera
        self._shown = redact.location(location_of(camera))
        self._loop = camera.type == "file" and camera.loop
        self.live = camera.type != "file"
        if camera.type == "file" and not Path(str(camera.location)).is_file():
            raise SourceError(f"{self._shown}: no such file")
        self._frames = 0
        self._sizes: FileSizes | None = None
        self._capture = self._opened()

    def _opened(self) -> Any:
        import cv2

        with translated(self._camera):
            capture = _capture(cv2, self._camera)
            if not capture.isOpened():
                capture.release()
                raise SourceError(f"{self._shown}: cannot be opened as {self._camera.type}")
            fps = capture.get(cv2.CAP_PROP_FPS)
            if self._camera.type == "file":
                self._sizes = FileSizes(Path(str(self._camera.location)), capture)
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

        with translated(self._camera):
            if not self._capture.grab():
                return False
            if not self.live:
                seconds = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                self.position = seconds if math.isfinite(seconds) else 0.0
        self._frames += 1
        return True

    def retrieve(self) -> "Image":
        import cv2

        with translated(self._camera):
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


def _capture(cv2: Any, camera: Camera) -> Any:
    if camera.type == "device":
        text = str(camera.location)
        location: int | str = int(text) if text.isascii() and text.isdigit() else text
        capture = cv2.VideoCapture(location, cv2.CAP_V4L2)
        for prop, value in ((cv2.CAP_PROP_FRAME_WIDTH, camera.width), (cv2.CAP_PROP_FRAME_HEIGHT, camera.height)):
            if value:
                capture.set(prop, value)
        if camera.fps:
            capture.set(cv2.CAP_PROP_FPS, camera.fps)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        return capture
    timeout_ms = int(camera.stall_timeout_s * 1000)
    limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, timeout_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, timeout_ms]
    where = str(camera.location) if camera.type == "file" else escaped(str(camera.location))
    return cv2.VideoCapture(where, cv2.CAP_FFMPEG, limits)
