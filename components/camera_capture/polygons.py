"""Polygons in a picture, in fractions of its width and height."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from edgeml.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    Mask = np.ndarray[Any, np.dtype[np.uint8]]

Fraction = Annotated[float, Meta(ge=0, le=1)]
Corner = tuple[Fraction, Fraction]
Polygon = Annotated[tuple[Corner, ...], Meta(min_length=3, max_length=64)]

MAX_POLYGONS = 32
_LEAST = 1e-6  # of the picture


def check(path: str, polygons: Sequence[Sequence[Corner]]) -> None:
    """Raises ConfigError for a polygon that covers nothing."""
    for number, corners in enumerate(polygons):
        ends = zip(corners, [*corners[1:], corners[0]], strict=True)
        if abs(sum(a[0] * b[1] - b[0] * a[1] for a, b in ends)) < 2 * _LEAST:
            raise ConfigError(f"{path}.{number}", "expected a polygon, its corners lie on one line")


def drawn(polygons: Sequence[Sequence[Corner]], width: int, height: int) -> "Mask":
    """(height, width), 255 in each pixel that a polygon touches, else 0."""
    import cv2
    import numpy as np

    mask = np.zeros((height, width), np.uint8)
    for corners in polygons:
        points = np.floor(np.array(corners) * (width, height)).clip(0, (width - 1, height - 1))
        cv2.fillPoly(mask, [points.astype(np.int32)], 255)
    # Slanted edges are drawn through the nearest pixels; with one more on each side none that they touch is left out.
    return cv2.dilate(mask, np.ones((3, 3), np.uint8)) if polygons else mask  # type: ignore[return-value]
