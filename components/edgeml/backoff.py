"""Pauses between attempts: full jitter, so that a fleet does not come back all at once."""

import random
from dataclasses import dataclass


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
