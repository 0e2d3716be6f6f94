"""Parts of frames that are still in the ring, asked for by time and place, to S3."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

from camera_capture.asked import WITHIN_S, check_key, take
from camera_capture.camera import Stills
from camera_capture.snapshots import encode_jpeg
from edgeml.component import Context
from edgeml.errors import RefusedError, SourceError, SpoolError
from edgeml.frames import Frame, FrameReader
from edgeml.messages import StillCommand
from edgeml.pace import Ration
from edgeml.s3 import Uploader

MOST = 60  # a minute
MAX_BYTES = 8 << 20
ROUNDING = 1e-4  # fractions are told in five digits


class StillSender:
    """Answers the command `still` of one camera. `uploader` gives None while nothing can go to S3."""

    def __init__(
        self,
        camera: str,
        settings: Stills,
        context: Context,
        directory: Path,
        uploader: Callable[[], Uploader | None],
    ) -> None:
        self._camera, self._settings, self._context, self._directory = camera, settings, context, directory
        self._uploader = uploader
        self._ration = Ration(MOST, WITHIN_S)

    def send(self, command: StillCommand) -> Frame:
        """Queue what the box shows, durably; the frame that it was cut out of.

        Raises RefusedError for what is never sent, FrameError and SourceError where there is no frame, SpoolError.
        """
        check_key(command.key, self._settings.s3_prefix, self._context.thing_name, ".jpg")
        check_box(command.box)
        uploader = self._uploader()
        if uploader is None:
            raise SpoolError("nothing can be kept for S3 now")
        take(self._ration, "stills")
        with FrameReader(self._camera, directory=self._directory) as reader:
            frame = reader.at(command.captured_at)
        if frame is None:
            raise SourceError(f"no frame of {command.captured_at:.3f} is in the ring (any more)")
        data = encode_jpeg(part(frame, command.box), self._settings.quality)
        if len(data) > MAX_BYTES:
            raise SourceError(f"a JPEG of {len(data)} bytes is above the limit of {MAX_BYTES}")
        uploader.put(self._settings.s3_bucket, command.key, data, "image/jpeg")
        self._context.health.scope(f"cameras.{self._camera}").count("stills")
        return frame


def check_box(box: tuple[float, float, float, float]) -> None:
    """Raises RefusedError unless it is [x, y, width, height] in fractions of a picture, and has an area."""
    x, y, w, h = box
    inside = all(math.isfinite(side) for side in box) and min(x, y) >= 0 < min(w, h)
    if not inside or max(x + w, y + h) > 1 + ROUNDING:
        raise RefusedError(f"box: expected [x, y, width, height] in fractions of the picture, found {list(box)}")


def part(frame: Frame, box: tuple[float, float, float, float]) -> Frame:
    """The frame's pixels that a checked box touches, at least one."""
    x, y, w, h = box
    left, top = min(round(x * frame.width), frame.width - 1), min(round(y * frame.height), frame.height - 1)
    right, bottom = max(left + 1, round((x + w) * frame.width)), max(top + 1, round((y + h) * frame.height))
    return dataclasses.replace(frame, image=frame.image[top:bottom, left:right])
