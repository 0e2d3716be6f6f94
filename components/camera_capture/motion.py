"""Does anything move in front of a camera? On a small grey copy of its frames, against a background that adapts.

A change of light is no motion: the background is first brought to the light of the frame (gain and offset, fitted to
the pixels that agree), and where much changes at once, as by a switch to infrared, it is learned anew. Noise is none
either: the smaller the copy the less is left of it, and the limit rises with what is left.
"""

import math
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from camera_capture import polygons
from camera_capture.polygons import Polygon
from edgeml.frames import Motion

if TYPE_CHECKING:
    import numpy as np

    from camera_capture.source import Image

    Grey = np.ndarray[Any, np.dtype[np.float32]]

ROWS, MAX_COLUMNS = 100, 400  # of the copy
LEARN_S = 5.0  # in which the background takes on two thirds of a change
GAP_S = 30.0  # after a longer gap between two looks nothing is known of the background
SUDDEN, ALL = 0.25, 0.5  # of the picture: what no thing fills between two looks, and what it may when things move
SWITCHED = 1.2  # by how much the light changes between two looks when it is switched
SETTLE_S, AT_LAST_S = 1.5, 4.0  # how long a camera needs for another light; after that it is no light that changes
NOISE = 5.0  # standard deviations that a change must have
SIGMA = 1.4826  # standard deviations in a median of absolute ones
SAMPLE = 500  # pixels that are enough to know the light and the noise
FLAT, GAIN = 100.0, 5.0  # variance of a scene of which no gain can be told; the largest gain


class MotionSettings(msgspec.Struct, frozen=True):
    every_s: Annotated[float, Meta(ge=0, le=60, description="Seconds between two looks; 0 looks at each frame")] = 0.1
    threshold: Annotated[
        float, Meta(ge=1, le=255, description="Change of a pixel's grey level, of 255, that counts")
    ] = 20
    min_area: Annotated[float, Meta(gt=0, le=1, description="Part of the picture that must change in one piece")] = (
        0.001
    )
    mask: Annotated[
        tuple[Polygon, ...],
        Meta(
            max_length=polygons.MAX_POLYGONS,
            description="Where it does not matter what moves: polygons of corners [x, y] in fractions of the picture",
        ),
    ] = ()
    hold_s: Annotated[
        float, Meta(ge=0, le=3600, description="Seconds for which motion goes on after the last change")
    ] = 5.0


class MotionDetector:
    """Looks at the frames of one camera, in their order, but not where they are `hidden` anyway."""

    def __init__(self, settings: MotionSettings, pixel_format: str, hidden: tuple[Polygon, ...] = ()) -> None:
        self._settings, self._pixel_format, self._ignored = settings, pixel_format, (*settings.mask, *hidden)
        self._background: Grey | None = None
        self._seen: Any = None  # bool, as large as the background: False where nothing matters
        self._sample: Any = None  # pixels by which the light is known
        self._part = 1.0  # of the picture, that is looked at
        self._due_s = self._looked_s = self._changed_s = -math.inf
        self._first_s = self._last_s = -math.inf  # changes of the scene, one soon after another
        self._area = 0.0

    def look(self, image: "Image", now_s: float) -> Motion:
        """What moves in the frame of `now_s` (monotonic): (height, width, 3) or (height, width), uint8."""
        if now_s >= self._due_s:
            self._due_s = max(self._due_s + self._settings.every_s, now_s + self._settings.every_s / 2)
            self._area = self._changed(self._small(image), now_s)
            if self._area >= self._settings.min_area:
                self._changed_s = now_s
            self._looked_s = now_s
        return Motion(self._moves(now_s), self._area)

    def _moves(self, now_s: float) -> bool:
        return now_s - self._changed_s <= max(self._settings.hold_s, 1.5 * self._settings.every_s)

    def _small(self, image: "Image") -> "Grey":
        """A grey copy of about 100 rows: cheap samples of the picture, four of them averaged for each pixel."""
        import cv2
        import numpy as np

        height, width = image.shape[:2]
        scale = min(1.0, ROWS / height, MAX_COLUMNS / width)
        rows, columns = max(1, round(height * scale)), max(1, round(width * scale))
        small: Any = image
        if scale < 0.5:
            small = cv2.resize(small, (2 * columns, 2 * rows), interpolation=cv2.INTER_LINEAR)
        small = cv2.resize(small, (columns, rows), interpolation=cv2.INTER_AREA)
        if small.ndim == 3:
            to_grey = cv2.COLOR_RGB2GRAY if self._pixel_format == "rgb24" else cv2.COLOR_BGR2GRAY
            small = cv2.cvtColor(small, to_grey)
        blurred: Grey = cv2.blur(small.astype(np.float32), (3, 3))
        return blurred

    def _changed(self, small: "Grey", now_s: float) -> float:
        """The largest piece that differs from the background, as a part of the picture; the background is updated."""
        import cv2
        import numpy as np

        background, passed_s = self._background, now_s - self._looked_s
        if background is None or background.shape != small.shape or passed_s > max(GAP_S, 3 * self._settings.every_s):
            self._begin(small)
            return 0.0
        if not len(self._sample):
            return 0.0
        gain, offset = light(background.take(self._sample), small.take(self._sample))
        unbound = background * np.float32(gain) + np.float32(offset)
        expected = unbound.clip(0, 255)
        difference = np.abs(small - expected)
        is_lit = abs(gain - 1) * 255 + abs(offset) > self._settings.threshold / 4
        if is_lit:  # a colour that saturates follows the light as far as it can
            unsure = (small - background) * (small - unbound) <= 0
            expected[unsure] = small[unsure]
            difference[unsure] = 0
            background = expected
        noise = SIGMA * middle(difference.take(self._sample))
        threshold = self._settings.threshold
        changed = np.count_nonzero((difference > threshold) & self._seen) / small.size
        moves, switched = self._moves(now_s), not 1 / SWITCHED < gain < SWITCHED
        if changed > (ALL if moves else SUDDEN) * self._part or (switched and not moves):
            self._background = small
            return changed if moves or self._goes_on(now_s) else 0.0
        if not moves and now_s - self._last_s <= SETTLE_S:
            self._background = small
            return 0.0
        area = largest((difference > max(threshold, NOISE * noise)) & self._seen) / small.size
        cv2.accumulateWeighted(small, background, -math.expm1(-passed_s / LEARN_S))
        self._background = background
        return area

    def _goes_on(self, now_s: float) -> bool:
        """Whether the scene that changes now has done so for too long to be a light."""
        if now_s - self._last_s > SETTLE_S:
            self._first_s = now_s
        self._last_s = now_s
        return now_s - self._first_s > AT_LAST_S

    def _begin(self, small: "Grey") -> None:
        import numpy as np

        height, width = small.shape
        self._background = small
        self._seen = polygons.drawn(self._ignored, width, height) == 0
        self._part = float(self._seen.mean())
        every = np.flatnonzero(self._seen)
        self._sample = every[:: max(1, len(every) // SAMPLE)]
        if len(self._sample) % 2 == 0:
            self._sample = self._sample[:-1]  # of an odd number one is in the middle


def light(there: "Grey", here: "Grey") -> tuple[float, float]:
    """(gain, offset) that bring pixels from `there` to the light of `here`, by those that agree with most others."""
    import numpy as np

    gain, offset = 1.0, middle(here - there)
    for _ in range(3):
        off = np.abs(here - gain * there - offset)
        agree = off <= max(3 * SIGMA * middle(off), 2.0)
        x, y = there[agree], here[agree]
        before, now = float(x.sum()) / len(x), float(y.sum()) / len(y)
        x -= before
        spread = float(x.dot(x)) / len(x)
        slope = float(x.dot(y - now)) / len(x) / spread if spread > FLAT else 1.0
        gain = min(max(slope, 1 / GAIN), GAIN)
        offset = now - gain * before
    return gain, offset


def middle(values: "Grey") -> float:
    """Their median; of an even number, the larger of the two in the middle. It takes a fifth of np.median's time."""
    import numpy as np

    half = len(values) // 2
    return float(np.partition(values, half)[half])


def largest(changed: Any) -> int:
    """Pixels in the largest piece of what is True; a gap of two pixels parts nothing."""
    import cv2
    import numpy as np

    if not changed.any():
        return 0
    pieces = cv2.connectedComponents(cv2.dilate(changed.view(np.uint8), np.ones((3, 3), np.uint8)))[1]
    return int(np.bincount(pieces[changed]).max())
