"""A question that may take any time, asked in a thread of its own: the one who asks never waits."""

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

Spawn = Callable[[Callable[[], None]], object]  # begins a thread


class Asked(Generic[T]):
    """One `question` at a time. What hangs is left to itself, and nothing more is asked until it ends.

    It is asked `first_s` from now, and `every_s` after that. `failures` in a row are counted, one that takes longer
    than `timeout_s` once for each look at it; `answer` is the last one, `took_s` its seconds. Errors of the kinds
    `expected` are failures.
    """

    def __init__(
        self,
        question: Callable[[], T],
        spawn: Spawn,
        *,
        timeout_s: float,
        every_s: float = 0.0,
        first_s: float = 0.0,
        expected: tuple[type[Exception], ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._question, self._spawn, self._clock = question, spawn, clock
        self._timeout_s, self._every_s, self._expected = timeout_s, every_s, expected
        self._lock = threading.Lock()
        self._began: float | None = None  # of the one under way
        self._due = clock() + first_s
        self.answer: T | None = None
        self.took_s: float | None = None
        self.failures = 0

    def look(self) -> None:
        """Count what is late, and ask again if that is due."""
        with self._lock:
            now = self._clock()
            if self._began is not None:
                if now - self._began >= self._timeout_s:
                    self.failures += 1
                return
            if now < self._due:
                return
            self._began, self._due = now, now + self._every_s
        self._spawn(self._ask)

    def _ask(self) -> None:
        answer, failed = None, True
        try:
            answer = self._question()
            failed = False
        except self._expected:
            pass
        finally:
            with self._lock:
                began, self._began = self._began, None
                self.failures = self.failures + 1 if failed else 0
                if not failed and began is not None:
                    self.answer, self.took_s = answer, self._clock() - began
