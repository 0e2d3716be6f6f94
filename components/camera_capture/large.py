"""Pictures of a camera's large stream, by the time at which they were captured."""

import logging
import time
from typing import TYPE_CHECKING

from camera_capture import clip_file
from camera_capture.polygons import Polygon
from camera_capture.preroll import Preroll
from camera_capture.privacy import PrivacyMasks
from edgeml.errors import SourceError
from edgeml.frames import Frame
from edgeml.log import kv

if TYPE_CHECKING:
    import av

log = logging.getLogger(__name__)

DECODE_S = 3.0  # that a picture may take: some cameras send a keyframe a minute
NEAR_NS = 500_000_000  # what is farther from the moment shows another one


class LargePictures:
    """Decodes from the last keyframe before a moment on, up to it. What masks hide is black."""

    def __init__(self, preroll: Preroll, masks: tuple[Polygon, ...]) -> None:
        self._preroll, self._polygons = preroll, masks

    def at(self, captured_ns: int) -> Frame | None:
        """The nearest frame (BGR, without a number); None if none is near, or none can be decoded."""
        try:
            found = self._nearest(captured_ns)
            if found is None:
                return None
            at_ns, image = found[0], PrivacyMasks(self._polygons).applied(clip_file.bgr(found[1]))
        except SourceError as error:
            log.warning("the large stream cannot be decoded %s", kv(error=error))
            return None
        wall_ns = time.time_ns() - (time.monotonic_ns() - at_ns)
        return Frame(0, image, at_ns, wall_ns, image.shape[1], image.shape[0], "bgr24")

    def _nearest(self, captured_ns: int) -> "tuple[int, av.VideoFrame] | None":
        nearest, found, until = NEAR_NS, None, time.monotonic() + DECODE_S
        for at_ns, frame in clip_file.decoded(self._preroll.around(captured_ns)):
            if abs(at_ns - captured_ns) <= nearest:
                nearest, found = abs(at_ns - captured_ns), (at_ns, frame)
            elif at_ns > captured_ns:
                break
            elif time.monotonic() > until:
                raise SourceError(f"no keyframe within {DECODE_S:g} s of decoding before the picture that is wanted")
        return found
