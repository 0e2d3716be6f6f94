"""When to do something that happens too often to do it each time."""

import math
import time
from collections import deque


def following(due: float, interval_s: float) -> float:
    """When something is due again that was due at `due` and happens now, on the monotonic clock.

    The rate is kept when it came a little late; what was missed is not made up for.
    """
    now = time.monotonic()
    return due + interval_s if due + interval_s > now else now + interval_s


class Pacer:
    """What is done at most every `interval_s` seconds, at a steady rate; 0 holds nothing back. For one thread.

    Due at once, or, with `later`, after the first interval.
    """

    def __init__(self, interval_s: float, *, later: bool = False) -> None:
        self._interval_s = interval_s
        self._due = time.monotonic() + interval_s if later else -math.inf

    def wait_s(self) -> float:
        """Seconds until it is due, 0 when it is."""
        return max(0.0, self._due - time.monotonic())

    def took(self) -> None:
        """It is done now."""
        self._due = following(self._due, self._interval_s)

    def take(self) -> bool:
        """Whether it is due; it is then done."""
        if self.wait_s():
            return False
        self.took()
        return True


class Ration:
    """At most `most` times within any `within_s` seconds, on the monotonic clock or a given one. For one thread."""

    def __init__(self, most: int, within_s: float) -> None:
        self.most, self.within_s = most, within_s
        self._taken: deque[float] = deque(maxlen=most)

    def is_used_up(self, now_s: float | None = None) -> bool:
        now = time.monotonic() if now_s is None else now_s
        return len(self._taken) == self.most and abs(now - self._taken[0]) < self.within_s

    def took(self, now_s: float | None = None) -> None:
        """It is done now."""
        self._taken.append(time.monotonic() if now_s is None else now_s)

    def take(self) -> bool:
        """Whether it may be done now; it is then done. What may not does not count."""
        if self.is_used_up():
            return False
        self.took()
        return True


def worth_telling(count: int) -> bool:
    """Whether the nth case of one kind is to be logged: the 1st, 2nd, 4th, 8th ..."""
    return count & (count - 1) == 0


class Throttle:
    """Counts the cases of one kind, of which few are logged: a flood must not flood the log as well."""

    def __init__(self) -> None:
        self.count = 0

    def due(self) -> bool:
        """Count one more case; whether it is one to speak of."""
        self.count += 1
        return worth_telling(self.count)

    def reset(self) -> None:
        self.count = 0
