"""States of a component, when errors make it BROKEN, and when a step is skipped."""

import re
import shutil
import time
from collections import defaultdict
from enum import StrEnum
from pathlib import Path

from localdev.core.recipe import RecipeError

MAX_ERRORS = 3
LITE_WINDOW_SECONDS = 3600.0

_SKIPIF = re.compile(r"(!)?\s*(exists|onpath) +(.+)")


class State(StrEnum):
    """State of a component, as the core reports it."""

    NEW = "NEW"
    INSTALLED = "INSTALLED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"
    ERRORED = "ERRORED"
    BROKEN = "BROKEN"
    FINISHED = "FINISHED"


SETTLED = frozenset({State.RUNNING, State.FINISHED, State.BROKEN})


class ErrorCount:
    """Counts a component's errors by the state they came from; three make it BROKEN.

    Java: three in a row, each within `reset_seconds` of the one before. Lite (`sliding`): three within an hour,
    whatever happens in between.
    """

    def __init__(self, reset_seconds: float, *, sliding: bool) -> None:
        self._reset_seconds = reset_seconds
        self._sliding = sliding
        self._errors: defaultdict[State, list[float]] = defaultdict(list)

    def add(self, origin: State) -> bool:
        """Counts an error; true if it was one too many."""
        now, errors = time.monotonic(), self._errors[origin]
        if self._sliding:
            errors[:] = [error for error in errors if now - error < LITE_WINDOW_SECONDS]
        elif errors and now - errors[-1] >= self._reset_seconds:
            errors.clear()
        errors.append(now)
        return len(errors) >= MAX_ERRORS

    def succeeded(self, origin: State) -> None:
        """Forgets the errors of a state that was left well."""
        if not self._sliding:
            self._errors[origin].clear()

    def clear(self) -> None:
        """Forgets every error: the component is installed anew."""
        self._errors.clear()


def skips(condition: str) -> bool:
    """Whether a Skipif holds: `exists PATH` or `onpath PROGRAM`, after `!` the opposite. RecipeError if neither."""
    match = _SKIPIF.fullmatch(condition.strip())
    if not match:
        raise RecipeError(f"Skipif {condition!r} is neither `exists PATH` nor `onpath PROGRAM`")
    found = Path(match[3]).exists() if match[2] == "exists" else shutil.which(match[3]) is not None
    return found != bool(match[1])
