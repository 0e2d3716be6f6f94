"""Parts of frames, asked for by time and place, to S3: of the large stream, where there is one, or of the ring."""

import dataclasses
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from camera_capture.asked import WITHIN_S, check_key, take
from camera_capture.camera import Stills
from camera_capture.large import LargePictures
from camera_capture.snapshots import encode_jpeg
from edgeml.component import Context
from edgeml.errors import RefusedError, SourceError, SpoolError
from edgeml.frames import Frame, FrameReader
from edgeml.messages import StillCommand
from edgeml.pace import Ration
from edgeml.s3 import Uploader

MOST = 60  # a minute
AT_ONCE = 4  # that are decoded, or wait for it
DAY_S = 86400.0
MAX_BYTES = 8 << 20
Answer = Callable[[StillCommand, Callable[[], dict[str, Any]]], None]
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
        answer: Answer,
        large: LargePictures | None = None,
    ) -> None:
        self._answer, self._large, self._decoding = answer, large, threading.Semaphore(AT_ONCE)
        self._camera, self._settings, self._context, self._directory = camera, settings, context, directory
        self._uploader = uploader
        self._ration = Ration(MOST, WITHIN_S)

    def ask(self, command: StillCommand) -> dict[str, Any] | None:
        """The answer, once the still waits for S3; None where a frame is decoded first, and it is answered later.

        Raises RefusedError for what is never sent, FrameError and SourceError where there is no frame, SpoolError.
        """
        check_key(command.key, self._settings.s3_prefix, self._context.thing_name, ".jpg")
        check_box(command.box)
        take(self._ration, "stills")
        if self._large is None:
            return self._sent(command)
        if not self._decoding.acquire(blocking=False):
            raise RefusedError(f"{AT_ONCE} stills are being made already")
        try:
            self._context.spawn(f"still-{self._camera}", lambda: self._make(command), again=False)
        except BaseException:
            self._decoding.release()
            raise
        return None

    def _make(self, command: StillCommand) -> None:
        try:
            self._answer(command, lambda: self._sent(command))
        finally:
            self._decoding.release()

    def _frame(self, captured_at: float) -> Frame:
        if self._large is not None:
            now_ns, wall_s = time.monotonic_ns(), time.time()
            if not abs(wall_s - captured_at) < DAY_S:  # NaN is no time
                raise SourceError(f"no frame of {captured_at} is there")
            if (frame := self._large.at(now_ns - round((wall_s - captured_at) * 1e9))) is not None:
                return frame
        with FrameReader(self._camera, directory=self._directory) as reader:
            ringed = reader.at(captured_at)
        if ringed is None:
            raise SourceError(f"no frame of {captured_at:.3f} is in the ring (any more)")
        return ringed

    def _sent(self, command: StillCommand) -> dict[str, Any]:
        """Queue what the box shows, durably."""
        uploader = self._uploader()
        if uploader is None:
            raise SpoolError("nothing can be kept for S3 now")
        frame = self._frame(command.captured_at)
        data = encode_jpeg(part(frame, command.box), self._settings.quality)
        if len(data) > MAX_BYTES:
            raise SourceError(f"a JPEG of {len(data)} bytes is above the limit of {MAX_BYTES}")
        uploader.put(self._settings.s3_bucket, command.key, data, "image/jpeg")
        self._context.health.scope(f"cameras.{self._camera}").count("stills")
        return {"frame_id": frame.frame_id, "captured_at": frame.wall_ns / 1e9}


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
