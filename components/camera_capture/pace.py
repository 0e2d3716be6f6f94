"""The rate of a camera: files are waited for, live sources are thinned out."""

import time

MAX_GAP_S = 10.0  # between two frames of a file; a larger one is a mistake in its timestamps
ASSUMED_FPS = 25.0  # of files that do not say


class Pace:
    """Keeps a rate; 0 lets everything through. `wait_for` and `ahead` say how long to wait, and do not wait."""

    def __init__(self, fps: float, *, live: bool) -> None:
        self._interval = 1 / fps if fps > 0 else 0.0
        self._live = live
        self._next = time.monotonic()
        self._position: float | None = None

    def ahead(self) -> float:
        """Seconds until a frame may be taken from a source that has no times of its own."""
        if self._live or not self._interval:
            return 0.0
        self._catch_up()
        ahead = max(0.0, self._next - time.monotonic())
        self._next += self._interval
        return ahead

    def wait_for(self, position: float) -> float:
        """Seconds until the frame at `position` of its file is due; where times make no sense, those of the rate."""
        if self._position is not None:
            step = position - self._position
            self._next += step if 0 < step <= MAX_GAP_S else self._interval or 1 / ASSUMED_FPS
        self._position = position
        self._catch_up()
        return max(0.0, self._next - time.monotonic())

    def due(self) -> bool:
        """Whether a frame that a live source gives now is one to keep."""
        if not self._live or not self._interval:
            return True
        now = time.monotonic()
        # Half an interval of tolerance: a 30 fps camera thinned to 15 must not lose a frame to jitter.
        if now < self._next - self._interval / 2:
            return False
        self._next = max(self._next + self._interval, now)
        return True

    def _catch_up(self) -> None:
        now = time.monotonic()
        if self._next < now - 1:  # far behind (a suspended machine): do not race
            self._next = now
