"""Pauses between attempts: full jitter, so that a fleet does not come back all at once."""

import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass
class Backoff:
    """Successive pauses in seconds: uniform in 0 to min(`ceiling_s`, `first_s` * 2**n), n the failures in a row.

    At least `floor_s`, so that nothing spins. The defaults suit what waits for a cloud. Source: "Exponential Backoff
    And Jitter", AWS Architecture Blog, 2015.
    """

    first_s: float = 0.5
    ceiling_s: float = 60.0
    floor_s: float = 0.0
    failures: int = 0

    def next(self) -> float:
        """The pause after one more failure."""
        limit = min(self.ceiling_s, self.first_s * 2 ** min(self.failures, 32))
        self.failures += 1
        return max(self.floor_s, random.uniform(0.0, limit))  # noqa: S311

    def reset(self) -> None:
        """Begin anew: an attempt succeeded."""
        self.failures = 0


def retry(
    call: Callable[[], T],
    again: type[Exception] | tuple[type[Exception], ...],
    *,
    backoff: Backoff,
    stopping: threading.Event,
    total_s: float = math.inf,
    attempts: float = math.inf,
    failed: Callable[[Exception, float], object] = lambda error, pause_s: None,
) -> T:
    """What `call` answers; it is called again after an error of `again`, with a pause between.

    `failed` is told each error that another attempt follows, and the pause until then. The last error is raised when
    `stopping` is set, after `attempts`, and when `total_s` would be over before another one.
    """
    deadline = time.monotonic() + total_s
    while True:
        attempts -= 1
        try:
            return call()
        except again as error:
            pause_s = backoff.next()
            if attempts < 1 or stopping.is_set() or time.monotonic() + pause_s > deadline:
                raise
            failed(error, pause_s)
            if stopping.wait(pause_s):
                raise
