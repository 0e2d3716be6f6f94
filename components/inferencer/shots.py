"""How good a picture of an object is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from inferencer.sample import Array

if TYPE_CHECKING:
    from edgeml.messages import Detection

LARGE = 100.0  # pixels of the shorter side at which size counts half of what it can
SHARP = 100.0  # variance of the Laplacian at which sharpness does
LOOKED_AT = 96  # pixels of the longer side at which sharpness is measured, so that it does not depend on the size
WHOLE = 0.1  # of the shorter side: at this distance from the border an object is all in the picture
EYES = 0.3  # of the width of a face: the least distance of eyes that look into the camera
LEAST = 0.3  # what is left of the quality of what is cut off by the border, or turned away


def quality(found: Detection, size: tuple[int, int]) -> float:
    """From 0 to 1, sharpness apart: sure, large, frontal, not cut off by the border of a picture of `size` pixels."""
    return found.score * _large(found) * _whole(found, size) * frontal(found)


def _large(found: Detection) -> float:
    side = min(found.box[2:])
    return side / (side + LARGE)


def _whole(found: Detection, size: tuple[int, int]) -> float:
    x, y, w, h = found.box
    gap = min(x, y, size[0] - x - w, size[1] - y - h) / max(min(w, h), 1.0)
    return LEAST + (1 - LEAST) * min(1.0, max(0.0, gap / WHOLE))


def frontal(found: Detection) -> float:
    """How far a face looks into the camera, by where its nose is between its eyes; 1 of what has no landmarks."""
    if len(found.landmarks) != 5:  # eyes, nose, corners of the mouth
        return 1.0
    (ax, ay), (bx, by), (x, y) = found.landmarks[:3]
    apart = math.hypot(bx - ax, by - ay)
    if apart < 1:
        return LEAST
    off = abs((x - (ax + bx) / 2) * (bx - ax) + (y - (ay + by) / 2) * (by - ay)) / apart**2
    seen = min(1.0, apart / max(EYES * found.box[2], 1.0)) * (1 - min(1.0, 2 * off))
    return LEAST + (1 - LEAST) * seen


def sharpness(image: Array, box: Sequence[float]) -> float:
    """From 0 to 1, of what `box` holds of an image (height, width, 3) or (height, width), by the variance of its
    Laplacian (Pech-Pacheco et al. 2000)."""
    import cv2

    x, y, w, h = (round(side) for side in box)
    part = image[max(0, y) : max(0, y + h), max(0, x) : max(0, x + w)]
    if not part.size:
        return 0.0
    height, width = part.shape[:2]
    scale = LOOKED_AT / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(part, size, interpolation=cv2.INTER_AREA) if scale < 1 else part
    grey = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY) if small.ndim == 3 else small
    variance = float(cv2.Laplacian(grey, cv2.CV_32F).var())
    return variance / (variance + SHARP)
