"""A camera of the machine, by V4L2."""

import logging
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from msgspec import Meta

from camera_capture import v4l2
from camera_capture.camera import LocatedCamera
from camera_capture.video import Video
from edgeml.errors import SourceError
from edgeml.log import kv

log = logging.getLogger(__name__)


class DeviceCamera(LocatedCamera, frozen=True, kw_only=True, tag="device"):
    untagged: ClassVar[bool] = True

    location: Annotated[str | int, Meta(description="device: V4L2 index or path, as /dev/v4l/by-id/...")] = "0"
    input_format: Annotated[
        Literal["", "MJPG", "YUYV", "UYVY", "NV12", "GREY"],
        Meta(description="device: what the camera is to send; the driver chooses by default"),
    ] = ""

    def open(self) -> Video:
        """Raises SourceError."""
        path = v4l2.device(self.place())
        return Video(self, lambda cv2: self._capture(cv2, path))

    def _capture(self, cv2: Any, path: Path) -> Any:
        capture = cv2.VideoCapture(str(path), cv2.CAP_V4L2)
        code = cv2.VideoWriter.fourcc(*self.input_format) if self.input_format else 0
        for prop, value in (
            (cv2.CAP_PROP_FOURCC, code),
            (cv2.CAP_PROP_FRAME_WIDTH, self.width),
            (cv2.CAP_PROP_FRAME_HEIGHT, self.height),
            (cv2.CAP_PROP_FPS, self.fps),
        ):
            if value:
                capture.set(prop, value)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        if capture.isOpened():
            self._compare(cv2, capture, path, code)
        return capture

    def _compare(self, cv2: Any, capture: Any, path: Path, code: int) -> None:
        """Raises SourceError where the driver has another format. Another size is scaled, and told."""
        found = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
        if code and found != code:
            capture.release()
            raise SourceError(f"{path}: does not give {self.input_format}; it gives {v4l2.offered(path)}")
        size = (int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
        wanted = (self.width or size[0], self.height or size[1])
        if size != wanted:
            facts = kv(device=path, wanted=f"{wanted[0]}x{wanted[1]}", taken=f"{size[0]}x{size[1]}")
            log.warning("the device has another size, frames are scaled %s: it gives %s", facts, v4l2.offered(path))
