"""Frames as JPEGs. Imported when somebody watches and not before, since it brings OpenCV."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeml import privacy
from edgeml.messages import Hidden
from monitor.errors import EncodeError

Image = NDArray[np.uint8]

QUALITY = 80
MAX_DRAWN, MAX_CAPTION = 200, 40
_ORDER = {"rgb24": cv2.COLOR_RGB2BGR, "gray8": cv2.COLOR_GRAY2BGR}
# Okabe and Ito's palette, as draw.js has it, in BGR.
_COLORS = [(233, 180, 86), (0, 159, 230), (115, 158, 0), (66, 228, 240), (167, 121, 204), (0, 94, 213), (178, 114, 0)]

cv2.setNumThreads(1)  # a picture must not take the cores from what it is a picture of


def scaled(image: Image, pixel_format: str, width: int, *, copy: bool = True) -> Image:
    """`image`, of a frame, as (height, width, 3) BGR, at most `width` pixels wide. Raises EncodeError.

    With `copy=False` it may be `image` itself.
    """
    try:
        found: Any = image
        if found.shape[1] > width:
            found = cv2.resize(found, size(found.shape[1], found.shape[0], width), interpolation=_way(found, width))
        if pixel_format in _ORDER:
            found = cv2.cvtColor(found, _ORDER[pixel_format])
    except (cv2.error, MemoryError) as error:
        raise EncodeError(str(error)) from error
    return found.copy() if copy and found is image else found


def size(width: int, height: int, most: int) -> tuple[int, int]:
    """(width, height) of a picture that is at most `most` pixels wide."""
    return (width, height) if width <= most else (most, max(1, round(height * most / width)))


def _way(image: Image, width: int) -> int:
    # OpenCV averages whole pixels fast; between them it is slower than the encoding of what comes out.
    return cv2.INTER_AREA if image.shape[1] % width == 0 else cv2.INTER_LINEAR


def hide(image: Image, hidden: Sequence[Hidden]) -> None:
    """Make what nobody is to see unrecognisable, in place; `image` has the source's size. Raises EncodeError."""
    try:
        for each in hidden:
            privacy.hide(image, each)
    except (cv2.error, MemoryError, ValueError) as error:
        raise EncodeError(str(error)) from error


def jpeg(image: Image) -> bytes:
    """Raises EncodeError."""
    try:
        ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    except (cv2.error, MemoryError) as error:
        raise EncodeError(str(error)) from error
    if not ok:
        raise EncodeError("OpenCV made no JPEG")
    return data.tobytes()


def burnt(image: Image, found: Sequence[Any], scale: tuple[float, float]) -> Image:
    """A copy of `image` with the boxes of `found`, results as they were heard, whose pixels `scale` makes the image's.

    What is no detection is passed over. Raises EncodeError.
    """
    drawn = image.copy()
    line = max(1, image.shape[1] // 400)
    try:
        for one in found[:MAX_DRAWN]:
            box = _box(one, scale)
            if box is not None:
                _draw(drawn, one, box, line)
    except (cv2.error, MemoryError) as error:
        raise EncodeError(str(error)) from error
    return drawn


def _box(found: Any, scale: tuple[float, float]) -> tuple[int, int, int, int] | None:
    box = found.get("box") if isinstance(found, dict) else None
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(value, int | float) for value in box):
        return None
    left, top, width, height = (value * scale[at % 2] for at, value in enumerate(box))
    corners = left, top, left + width, top + height
    if not all(abs(value) < 1 << 15 for value in corners):
        return None
    return round(corners[0]), round(corners[1]), round(corners[2]), round(corners[3])


def _draw(image: Image, found: dict[str, Any], box: tuple[int, int, int, int], line: int) -> None:
    label, score, track = str(found.get("label", ""))[:MAX_CAPTION], found.get("score"), found.get("track")
    color = _COLORS[_hash(label) % len(_COLORS)]
    left, top, right, bottom = box
    cv2.rectangle(image, (left, top), (right, bottom), color, line)
    percent = f" {round(100 * score)} %" if isinstance(score, int | float) and 0 <= score <= 1 else ""
    number = f"#{track} " if isinstance(track, int) and track else ""
    caption = f"{number}{label}{percent}".encode("ascii", "replace").decode()  # OpenCV's font has no other letters
    scale = image.shape[1] / 1600 + 0.2
    (width, height), under = cv2.getTextSize(caption, cv2.FONT_HERSHEY_SIMPLEX, scale, line)
    foot = top if top - height - under >= 0 else top + height + under
    cv2.rectangle(image, (left, foot - height - under), (left + width, foot), color, cv2.FILLED)
    cv2.putText(image, caption, (left, foot - under // 2), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), line)


def _hash(label: str) -> int:
    """As colorOf of draw.js: a label has one colour everywhere."""
    found = 7
    for letter in label:
        found = (found * 31 + ord(letter)) % 9973
    return found
