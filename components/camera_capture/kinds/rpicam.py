"""The camera of a Raspberry Pi: raw frames of rpicam-vid, read from a pipe.

Source of the format: rpicam-apps, encoder/null_encoder.cpp (buffers as they are, rows padded as the hardware needs it)
and apps/rpicam_vid.cpp (yuv420 is in the colour space of JPEG: BT.601 in its full range).
"""

import re
import shlex
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from camera_capture.camera import LocatedCamera
from camera_capture.piped import Piped, Tool
from edgeml.errors import ConfigError, SourceError

if TYPE_CHECKING:
    from camera_capture.source import Image

ROW = 64  # pixels that rows are padded to
_STREAM = re.compile(rb"(\d{1,5})x(\d{1,5})-YUV420")  # what libcamera says that it gives


class RpicamCamera(LocatedCamera, frozen=True, kw_only=True, tag="rpicam"):
    location: Annotated[
        str | int, Meta(description="rpicam: number of the camera, as rpicam-hello --list-cameras says it")
    ] = "0"
    width: Annotated[int, Meta(ge=0, le=7680, description="rpicam: width of frames, a multiple of 64 pixels")] = 1280
    height: Annotated[int, Meta(ge=0, le=4320, description="rpicam: height of frames, an even number of pixels")] = 720
    options: Annotated[
        str, Meta(max_length=2000, description="rpicam: further options of rpicam-vid, as --rotation 180")
    ] = ""

    def check(self, path: str) -> None:
        super().check(path)
        for name, step in (("width", ROW), ("height", 2)):
            value = getattr(self, name)
            if not value or value % step:
                raise ConfigError(f"{path}.{name}", f"expected a multiple of {step}, as rpicam needs it, found {value}")
        if not (self.where.isascii() and self.where.isdigit()):
            raise ConfigError(f"{path}.location", f"expected the number of a camera, found {self.where[:80]!r}")

    def open(self) -> "Rpicam":
        """Raises SourceError."""
        return Rpicam(self)


class Rpicam(Piped):
    def __init__(self, camera: RpicamCamera) -> None:
        import numpy as np

        self._size = (camera.width, camera.height)
        self._is_grey = camera.pixel_format == "gray8"
        self._checked = False
        rows = camera.height * 3 // 2  # of brightness, and then half as much of the two colours
        super().__init__(_program(camera), rows * camera.width, camera.stall_timeout_s)
        self._planes: Image = np.ndarray((rows, camera.width), np.uint8, self._frame)
        levels = np.arange(256)
        self._limited: list[Image] = [  # what OpenCV converts: brightness from 16 to 235, colours from 16 to 240
            np.rint(16 + levels * 219 / 255).astype(np.uint8),
            np.rint(128 + (levels - 128) * 224 / 255).astype(np.uint8),
        ]

    def grab(self) -> bool:
        grabbed = super().grab()
        if not self._checked:
            self._check_size()
        return grabbed

    def retrieve(self) -> "Image":
        import cv2
        import numpy as np

        height = self._size[1]
        if self._is_grey:
            return self._planes[:height].copy()
        planes = np.empty_like(self._planes)
        cv2.LUT(self._planes[:height], self._limited[0], dst=planes[:height])
        cv2.LUT(self._planes[height:], self._limited[1], dst=planes[height:])
        image: Image = cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_I420)  # type: ignore[assignment]
        return image

    def _check_size(self) -> None:
        """A camera that cannot give the size takes another one, and says so: its frames would all be torn."""
        self._checked = True
        self._listen_on()
        found = _STREAM.search(self._log)
        if found is not None and (size := (int(found[1]), int(found[2]))) != self._size:
            wanted = f"{self._size[0]}x{self._size[1]}"
            raise SourceError(f"the camera gives {size[0]}x{size[1]} instead of {wanted}: configure a size that it has")


def _program(camera: RpicamCamera) -> Tool:
    try:
        more = shlex.split(camera.options)
    except ValueError as error:
        raise SourceError(f"options: {error}") from error
    words = ["--camera", camera.place(), "--width", str(camera.width), "--height", str(camera.height)]
    words += ["--framerate", f"{camera.fps:g}"] if camera.fps else []
    words += ["--timeout", "0", "--nopreview", "--codec", "yuv420", "--flush", "-o", "-", *more]
    return Tool(
        name="rpicam-vid",
        package="rpicam-apps",
        what="rpicam-vid",
        words=lambda writing: words,
        telling=("ERROR", "no cameras available", "failed", "unrecognised option"),
        to_stdout=True,
    )
