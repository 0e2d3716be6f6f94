"""The newest results of one camera, by the frame they were found in."""

import threading
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from edgeml import messages
from edgeml.messages import InferenceResult

KEPT = 64  # frames
SAME_S = 0.001
COME_S = 2.0  # for so long after a result another one is expected


class Results:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._frames: dict[int, dict[str, InferenceResult]] = {}  # by frame id, the one heard of first first
        self._at = -COME_S * 2

    def put(self, pipeline: str, result: InferenceResult) -> None:
        with self._lock:
            self._at = time.monotonic()
            found = self._frames.setdefault(result.source.frame_id, {})
            if pipeline in found or len(found) < 16:
                found[pipeline] = result
            while len(self._frames) > KEPT:
                del self._frames[next(iter(self._frames))]

    def come(self) -> bool:
        """Whether results came in the last two seconds, so that a frame may wait for its own."""
        return time.monotonic() - self._at < COME_S

    def of(self, frame_id: int, captured_at: float) -> dict[str, InferenceResult]:
        """What the pipelines found in a frame, by their names. Ids begin anew with a ring's writer, times do not."""
        with self._lock:
            found = self._frames.get(frame_id, {})
            return {
                name: result for name, result in found.items() if abs(result.source.captured_at - captured_at) < SAME_S
            }

    @staticmethod
    def boxes(found: Mapping[str, InferenceResult]) -> list[Any]:
        """All that several pipelines found in a frame."""
        return [one for result in found.values() if isinstance(result.results, list) for one in result.results]

    @staticmethod
    def encoded(found: Mapping[str, InferenceResult]) -> bytes:
        """A JSON list of {pipeline, result}, as a page takes it with a picture."""
        return messages.encode([{"pipeline": name, "result": _brief(result)} for name, result in found.items()])


def _brief(result: InferenceResult) -> InferenceResult:
    """Without what a picture's header does not need."""
    return msgspec.structs.replace(result, request_id="", hidden=None)
