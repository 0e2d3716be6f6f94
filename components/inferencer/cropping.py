"""What a detection shows, cut out of its picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inferencer.sample import Array, Outcome, Sample

if TYPE_CHECKING:
    from edgeml.messages import Detection


def cut(sample: Sample, outcome: Outcome, found: Detection, margin: float, min_pixels: int) -> Array | None:
    """A copy of a detection's pixels with its margin, in BGR or grey, clipped to the image, less what is hidden.

    None where the box is too small.
    """
    import cv2

    from edgeml.privacy import hide

    image = sample.image
    height, width = image.shape[:2]
    x, y, w, h = found.box
    if min(w, h) < min_pixels:
        return None
    left, top = max(0, int(x - w * margin)), max(0, int(y - h * margin))
    right = min(width, int(x + w * (1 + margin)) + 1)
    bottom = min(height, int(y + h * (1 + margin)) + 1)
    part = image[top:bottom, left:right]
    if not part.size:
        return None
    part = cv2.cvtColor(part, cv2.COLOR_RGB2BGR) if sample.pixel_format == "rgb24" else part.copy()
    if outcome.hidden is not None:
        hide(part, outcome.hidden, origin=(left, top))
    return part


def fractions(found: Detection, margin: float, width: int, height: int) -> tuple[float, float, float, float]:
    """A box with its margin in fractions of the frame, clipped to it."""
    x, y, w, h = found.box
    left, top = max(0.0, x - margin * w), max(0.0, y - margin * h)
    right, bottom = min(width, x + (1 + margin) * w), min(height, y + (1 + margin) * h)
    across, down = round((right - left) / width, 5), round((bottom - top) / height, 5)
    return round(left / width, 5), round(top / height, 5), across, down
