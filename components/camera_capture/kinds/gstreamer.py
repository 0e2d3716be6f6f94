"""A pipeline run by gst-launch-1.0, its frames read from a pipe: OpenCV's wheels come without GStreamer."""

import shlex
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from camera_capture.camera import LocatedCamera
from camera_capture.piped import Piped, Tool
from edgeml.errors import ConfigError, SourceError

if TYPE_CHECKING:
    from camera_capture.source import Image


class GStreamerCamera(LocatedCamera, frozen=True, kw_only=True, tag="gstreamer"):
    location: Annotated[str | int, Meta(description="gstreamer: pipeline without its sink")] = "0"
    width: Annotated[int, Meta(ge=0, le=7680, description="gstreamer: width of frames in pixels, needed")] = 0
    height: Annotated[int, Meta(ge=0, le=4320, description="gstreamer: height of frames in pixels, needed")] = 0

    def check(self, path: str) -> None:
        super().check(path)
        for name in ("width", "height"):
            if not getattr(self, name):
                raise ConfigError(f"{path}.{name}", "expected int >= 1, as gstreamer needs it, found 0")

    def open(self) -> "GStreamer":
        """Raises SourceError."""
        return GStreamer(self)


class GStreamer(Piped):
    """Frames come through a pipe of their own, since elements print to standard output."""

    def __init__(self, camera: GStreamerCamera) -> None:
        import numpy as np

        stride = -(-camera.width * 3 // 4) * 4  # GStreamer pads rows of BGR to 4 bytes
        super().__init__(_program(camera), camera.height * stride, camera.stall_timeout_s)
        self._image: Image = np.ndarray((camera.height, camera.width, 3), np.uint8, self._frame, 0, (stride, 3, 1))

    def retrieve(self) -> "Image":
        return self._image


def _program(camera: GStreamerCamera) -> Tool:
    try:
        words = shlex.split(camera.place())
    except ValueError as error:
        raise SourceError(f"the pipeline's text is wrong: {error}") from error
    caps = f"video/x-raw,format=BGR,width={camera.width},height={camera.height}"

    def arguments(writing: int) -> list[str]:
        tail = ["!", "videoconvert", "!", "videoscale", "!", caps, "!", "fdsink", f"fd={writing}", "sync=false"]
        return ["-q", *words, *tail]

    return Tool(
        name="gst-launch-1.0",
        package="gstreamer1.0-tools",
        what="the pipeline",
        words=arguments,
        telling=("ERROR", "WARNING"),
        secrets=(camera.where, *words),
    )
