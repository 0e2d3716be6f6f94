"""A source that needs no camera."""

import time
from typing import TYPE_CHECKING

from camera_capture.camera import Camera
from camera_capture.source import Source

if TYPE_CHECKING:
    from camera_capture.source import Image


class PatternCamera(Camera, frozen=True, kw_only=True, tag="test_pattern"):
    def open(self) -> "Pattern":
        return Pattern(self)


class Pattern(Source):
    """Moving colour bars with the frame number as text."""

    def __init__(self, camera: Camera) -> None:
        import cv2
        import numpy as np

        self.fps = camera.fps or 30.0
        self._cv2 = cv2
        width, height = camera.width or 1280, camera.height or 720
        bars = np.array(
            [[255, 255, 255], [0, 255, 255], [255, 255, 0], [0, 255, 0], [255, 0, 255], [0, 0, 255]], np.uint8
        )
        row = bars[np.arange(width * 2) * 6 // width % 6]
        self._wide = np.ascontiguousarray(np.broadcast_to(row, (height, width * 2, 3)))
        self._width = width
        self._number = 0

    def grab(self) -> bool:
        self._number += 1
        return True

    def retrieve(self) -> "Image":
        shift = self._number * 4 % self._width
        image = self._wide[:, shift : shift + self._width].copy()
        text = f"{self._number} {time.strftime('%H:%M:%S')}"
        self._cv2.putText(image, text, (16, 48), self._cv2.FONT_HERSHEY_SIMPLEX, 1.2, (0, 0, 0), 3)
        return image
