"""Pictures with their times, made into a video: VP8 in WebM, which OpenCV's wheel writes and browsers play."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeml.errors import SourceError

if TYPE_CHECKING:
    from camera_capture.source import Image

SUFFIX, CONTENT_TYPE, CODEC = ".webm", "video/webm", "VP80"
WRITE_S = 300.0  # after so long a clip ends with what has been written of it


@dataclass(frozen=True)
class Kept:
    """A frame as JPEG. Times in nanoseconds: `captured_ns` monotonic, `wall_ns` Unix time."""

    captured_ns: int
    wall_ns: int
    data: bytes


def steps(times: Sequence[float], fps: float) -> list[int]:
    """Which of the pictures taken at `times`, in seconds, rising, a video of `fps` shows at each of its steps.

    The video lasts as long as it did: what came late is waited for with the picture before.
    """
    shown, index = [], 0
    for step in range(round((times[-1] - times[0]) * fps) + 1):
        moment = times[0] + (step + 0.5) / fps
        while index + 1 < len(times) and times[index + 1] < moment:
            index += 1
        shown.append(index)
    return shown


def write(path: Path, frames: Sequence[Kept], fps: float, *, max_bytes: int, is_over: Callable[[], bool]) -> float:
    """Write the video; the seconds that it covers, fewer if it would grow beyond `max_bytes` or took WRITE_S.

    Raises SourceError if it cannot be written whole, or `is_over`.
    """
    import cv2

    try:
        written = _written(path, frames, fps, max_bytes, is_over)
        video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
        try:  # OpenCV tells nobody that a disk is full
            whole = video.isOpened() and video.get(cv2.CAP_PROP_FRAME_COUNT) >= written - 1
        finally:
            video.release()
    except (cv2.error, OSError, MemoryError) as error:
        raise SourceError(f"clip cannot be written: {error}") from error
    if not whole:
        raise SourceError("clip cannot be written whole: is the disk full?")
    return written / fps


def _written(path: Path, frames: Sequence[Kept], fps: float, max_bytes: int, is_over: Callable[[], bool]) -> int:
    import cv2

    shown = steps([frame.captured_ns / 1e9 for frame in frames], fps)
    image = _image(frames[0])
    height, width = image.shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*CODEC), fps, (width, height))
    try:
        if not writer.isOpened():
            raise SourceError(f"clip cannot be written: OpenCV makes no {CODEC} of {width}x{height} in {path.name}")
        until, before = time.monotonic() + WRITE_S, 0
        for step, index in enumerate(shown):
            if is_over():
                raise SourceError("the camera is stopped or changed: the clip is lost")
            if step and (time.monotonic() > until or path.stat().st_size > max_bytes - (1 << 20)):
                return step
            if index != before:
                image, before = _image(frames[index]), index
                if image.shape != (height, width, 3):
                    image = cv2.resize(image, (width, height))  # type: ignore[assignment]
            writer.write(image)
        return len(shown)
    finally:
        writer.release()


def _image(frame: Kept) -> "Image":
    import cv2
    import numpy as np

    image = cv2.imdecode(np.frombuffer(frame.data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise SourceError("a kept picture cannot be decoded")
    return image  # type: ignore[return-value]
