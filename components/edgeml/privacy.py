"""Regions of pictures made unrecognisable, for good: of each are left the mean colours of a few cells, or nothing."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from edgeml.messages import Hidden, Method, Region

Image = np.ndarray[Any, Any]

CELLS = 3  # along the longer side of a region; blurred to more, faces are still found
SMALLEST = 8  # pixels of a cell's side: a small region has fewer cells
MAX_REGIONS = 50  # of a picture; further ones become one that holds them all


def hide(image: Image, hidden: Hidden, *, origin: tuple[int, int] = (0, 0)) -> None:
    """Overwrite the regions of `image`, (height, width, 3) or (height, width) of uint8, in place.

    `origin` is where the image lies in the picture whose pixels the regions count: that of a crop. To be called before
    anything is scaled or encoded.
    """
    for x, y, width, height in hidden.regions:
        left, top = x - origin[0], y - origin[1]
        part = image[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)]
        if part.size:
            part[...] = _covered(part, max(width, height), hidden.method)


def _covered(part: Image, longer: int, method: Method) -> Any:
    import cv2

    if method == "box":
        return 0
    height, width = part.shape[:2]
    cell = max(SMALLEST, math.ceil(longer / CELLS))
    size = max(1, round(width / cell)), max(1, round(height / cell))
    means = cv2.resize(part, size, interpolation=cv2.INTER_AREA)
    way = cv2.INTER_NEAREST if method == "pixelate" else cv2.INTER_LINEAR
    return cv2.resize(means, (width, height), interpolation=way)


def around(box: Sequence[float], margin: float, size: tuple[int, int]) -> Region:
    """A box [x, y, width, height] with `margin`, a fraction of it, on each side, in a picture of `size`, its width and
    height in pixels."""
    x, y, width, height = box
    left, right = _span(x, width, margin, size[0])
    top, bottom = _span(y, height, margin, size[1])
    return left, top, right - left, bottom - top


def _span(start: float, length: float, margin: float, limit: int) -> tuple[int, int]:
    first, last = min(start, start + length), max(start, start + length)  # a model may give the corners the other way
    begin, end = math.floor(first - margin * abs(length)), math.ceil(last + margin * abs(length))
    return min(max(0, begin), limit), min(max(0, end), limit)


def moved(regions: Iterable[Region], crop: Region) -> tuple[Region, ...]:
    """What of `regions` lies in a crop, in its own pixels."""
    found = []
    for x, y, width, height in regions:
        left, top = max(0, x - crop[0]), max(0, y - crop[1])
        right, bottom = min(crop[2], x + width - crop[0]), min(crop[3], y + height - crop[1])
        if left < right and top < bottom:
            found.append((left, top, right - left, bottom - top))
    return tuple(found)


def few(regions: Iterable[Region]) -> tuple[Region, ...]:
    """The regions, of those beyond MAX_REGIONS the one around them all."""
    found = tuple(regions)
    if len(found) <= MAX_REGIONS:
        return found
    return *found[: MAX_REGIONS - 1], union(found[MAX_REGIONS - 1 :])


def union(regions: Sequence[Region]) -> Region:
    """The region around all of them; there must be one."""
    left, top = min(each[0] for each in regions), min(each[1] for each in regions)
    right, bottom = max(each[0] + each[2] for each in regions), max(each[1] + each[3] for each in regions)
    return left, top, right - left, bottom - top
