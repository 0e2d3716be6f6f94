"""Samples at our own pace."""

import time

from edgeml.pace import Pacer


class Clock:
    """Waits for the next tick of a rate; ticks that were missed are left out."""

    def __init__(self, interval: float) -> None:
        self._pacer = Pacer(interval)

    def wait(self, timeout: float) -> bool:
        """Whether the tick came within `timeout` seconds."""
        ahead = self._pacer.wait_s()
        if ahead > timeout:
            time.sleep(timeout)
            return False
        if ahead > 0:
            time.sleep(ahead)
        self._pacer.took()
        return True
