"""Places that nobody is to see: blacked out in a camera's pictures before anything else is done with them."""

from typing import TYPE_CHECKING, Any

from camera_capture import polygons
from camera_capture.polygons import Polygon

if TYPE_CHECKING:
    from camera_capture.source import Image


class PrivacyMasks:
    """Of one camera. Whole pixels: what a polygon touches is black, and one pixel more on each side."""

    def __init__(self, masks: tuple[Polygon, ...]) -> None:
        self._masks = masks
        self._shape: tuple[int, ...] = ()
        self._pieces: list[tuple[tuple[slice, slice], Any, Any]] = []  # where, which of the pixels there, and black

    def applied(self, image: "Image") -> "Image":
        """`image`, (height, width, 3) or (height, width), blacked out in place where that can be done."""
        import cv2

        if not self._masks:
            return image
        if self._shape != image.shape:
            self._pieces = [self._piece(mask, image.shape) for mask in self._masks]
            self._shape = image.shape
        if not image.flags.writeable:
            image = image.copy()
        for where, hidden, black in self._pieces:
            part = image[where]
            if (done := cv2.copyTo(black, hidden, part)) is not part:
                part[:] = done
        return image

    def _piece(self, mask: Polygon, shape: tuple[int, ...]) -> tuple[tuple[slice, slice], Any, Any]:
        import cv2
        import numpy as np

        hidden = polygons.drawn([mask], shape[1], shape[0])
        left, top, across, down = cv2.boundingRect(hidden)
        where = (slice(top, top + down), slice(left, left + across))
        return where, np.ascontiguousarray(hidden[where]), np.zeros((down, across, *shape[2:]), np.uint8)
