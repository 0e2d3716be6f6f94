"""When a frame was captured, by the stream's own times where they make sense."""

from typing import TypeGuard

MAX_LATE_S = 2.0  # a frame that says it is older than that is not believed
MAX_LIES = 3
MAX_TIME = 1e10  # beyond, the difference of two says little
DRIFT = 1e-3  # of a camera's clock against ours, at most


class StreamClock:
    """Turns times of a stream into those of a clock. Only their differences count: what zero is, cameras make up.

    The packet that took the shortest way says how the two clocks differ. Times that run backwards, leap or are missing
    are passed over, and after MAX_LIES of them all are, until the stream is opened anew. All times in seconds.
    """

    def __init__(self) -> None:
        self._delay: float | None = None  # of arrivals behind times of the stream; the least
        self._at = 0.0
        self._last: float | None = None
        self._captured = 0.0
        self._lies = 0

    def arrived(self, time: float | None, now: float) -> None:
        """A packet of that time has come. Packets may come in another order than their times."""
        if not _is_sane(time):
            return
        delay = now - time
        if self._delay is not None and abs(delay - self._delay) > MAX_LATE_S:
            self._lie()
        if self._delay is None:
            self._delay = delay
        self._delay = min(self._delay + DRIFT * (now - self._at), delay)
        self._at = now

    def captured(self, time: float | None, now: float) -> float:
        """When the frame of that time was captured: at most `now`, and later than the frame before it."""
        found = now
        if _is_sane(time):
            if self._last is not None and time <= self._last:
                self._lie()
            self._last = time
            if self._delay is not None and self._lies < MAX_LIES:
                found = min(time + self._delay, now)
        self._captured = max(found, min(self._captured + 1e-6, now))
        return self._captured

    def _lie(self) -> None:
        self._lies += 1
        self._delay = self._last = None


def _is_sane(time: float | None) -> TypeGuard[float]:
    return time is not None and abs(time) < MAX_TIME
