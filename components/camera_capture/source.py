"""What a video source is, and how errors of foreign libraries become ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edgeml import redact
from edgeml.errors import EdgemlError, SourceError

if TYPE_CHECKING:
    import numpy as np

    from camera_capture.preroll import Tap

    Image = np.ndarray[Any, np.dtype[np.uint8]]


class Source:
    """Gives frames as BGR arrays. `grab` may block; whoever calls copes with it.

    `fps` is the source's own rate (0 when unknown); `live` sources set the pace, others are paced by us. `position`
    is where the grabbed frame stands in its file, in seconds, where files say so. `trouble` says what the source
    passes over while it goes on; `passed` counts it. `packets`, set before `open`, takes the packets of a source
    that has any. `captured_ns` is when the grabbed frame was captured, by the monotonic clock, where the source knows.
    `software` says why hardware that was asked for does not decode; `sign_of_life` is the monotonic time at which a
    waiting `grab` last heard something.
    """

    fps = 0.0
    live = False
    position: float | None = None
    passed = 0
    trouble = ""
    packets: "Tap | None" = None
    captured_ns: int | None = None
    software = ""
    sign_of_life = 0.0

    @property
    def reading(self) -> "Source":
        """Itself, or the source that it found when it was opened."""
        return self

    def open(self) -> None:
        """Connect, where that may take long and can be cancelled; called once, before `grab`. Raises SourceError."""

    def grab(self) -> bool:
        """Wait for the next frame; False at the end. Raises SourceError."""
        raise NotImplementedError

    def retrieve(self) -> "Image":
        """The grabbed frame, height x width x 3 (BGR) or height x width. Does not wait. Raises UndecodableError."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Make a waiting `open` or `grab` of another thread return, where that can be done."""

    def close(self) -> None:
        """Release what is held."""


@contextmanager
def translated(where: str) -> Iterator[None]:
    """What OpenCV and the system raise, as SourceError without the secrets of the camera's place."""
    import cv2

    try:
        yield
    except EdgemlError:
        raise
    except (cv2.error, OSError, ValueError, MemoryError) as error:
        raise SourceError(f"{redact.location(where)}: {reason(error, where)}") from error


def reason(error: BaseException, where: str) -> str:
    """An error in one line that can be logged."""
    text = " ".join(str(error).split()) or "no further words"
    text = text if isinstance(error, EdgemlError) else f"{type(error).__name__}: {text}"
    return redact.text(text, where)[:400]
