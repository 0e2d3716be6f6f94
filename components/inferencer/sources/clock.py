"""Samples at our own pace."""

import time

from inferencer.sample import following


class Clock:
    """Waits for the next tick of a rate; ticks that were missed are left out."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._due = time.monotonic()

    def wait(self, timeout: float) -> bool:
        """Whether the tick came within `timeout` seconds."""
        ahead = self._due - time.monotonic()
        if ahead > timeout:
            time.sleep(timeout)
            return False
        if ahead > 0:
            time.sleep(ahead)
        self._due = following(self._due, self._interval)
        return True
