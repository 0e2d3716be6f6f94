"""A camera of the machine, by V4L2."""

from typing import Annotated, Any, ClassVar

from msgspec import Meta

from camera_capture.camera import LocatedCamera
from camera_capture.video import Video


class DeviceCamera(LocatedCamera, frozen=True, kw_only=True, tag="device"):
    untagged: ClassVar[bool] = True

    location: Annotated[str | int, Meta(description="device: V4L2 index or path")] = "0"

    def open(self) -> Video:
        return Video(self, self._capture)

    def _capture(self, cv2: Any) -> Any:
        text = self.place()
        capture = cv2.VideoCapture(int(text) if text.isascii() and text.isdigit() else text, cv2.CAP_V4L2)
        for prop, value in (
            (cv2.CAP_PROP_FRAME_WIDTH, self.width),
            (cv2.CAP_PROP_FRAME_HEIGHT, self.height),
            (cv2.CAP_PROP_FPS, self.fps),
        ):
            if value:
                capture.set(prop, value)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        return capture
