"""edgeml.backoff.retry, on a clock that the test sets."""

import math
import threading
from types import SimpleNamespace

import pytest

from edgeml import backoff
from edgeml.backoff import Backoff, retry


class AwayError(Exception):
    pass


class Steady(Backoff):
    """Pauses of a second, two, three, ..."""

    def next(self) -> float:
        self.failures += 1
        return float(self.failures)


class Stop(threading.Event):
    """Whose waiting takes no time but on the clock; it is set `at`."""

    def __init__(self, at: float) -> None:
        super().__init__()
        self.now, self._at = 0.0, at

    def wait(self, timeout: float | None = None) -> bool:
        self.now = min(self.now + (timeout or 0.0), self._at)
        if self.now >= self._at:
            self.set()
        return self.is_set()


@pytest.mark.parametrize(
    ("faults", "limits", "stop_at", "answer", "told"),
    [
        pytest.param([], {}, math.inf, "answer 1", [], id="at once"),
        pytest.param([AwayError, AwayError], {}, math.inf, "answer 3", [1, 2], id="the third time"),
        pytest.param([AwayError] * 50, {}, math.inf, "answer 51", list(range(1, 51)), id="for ever"),
        pytest.param([AwayError] * 9, {"attempts": 3}, math.inf, "AwayError 3", [1, 2], id="so many attempts"),
        pytest.param([AwayError] * 9, {"attempts": 1}, math.inf, "AwayError 1", [], id="one attempt"),
        pytest.param([AwayError] * 9, {"total_s": 3}, math.inf, "AwayError 3", [1, 2], id="not after the deadline"),
        pytest.param(
            [AwayError] * 9, {"total_s": 2.9}, math.inf, "AwayError 2", [1], id="nor when a pause would end after it"
        ),
        pytest.param([AwayError] * 9, {"total_s": 0}, math.inf, "AwayError 1", [], id="no time at all"),
        pytest.param([AwayError] * 9, {}, 2.5, "AwayError 2", [1, 2], id="stopped in a pause"),
        pytest.param([], {}, 0, "answer 1", [], id="stopped before: asked once"),
        pytest.param([AwayError] * 9, {}, 0, "AwayError 1", [], id="stopped before, and never again"),
        pytest.param([AwayError, KeyError], {}, math.inf, "KeyError 2", [1], id="any other error at once"),
    ],
)
def test_retry(
    monkeypatch: pytest.MonkeyPatch,
    faults: list[type[Exception]],
    limits: dict[str, float],
    stop_at: float,
    answer: str,
    told: list[int],
) -> None:
    stop, calls, heard = Stop(stop_at), 0, []
    if not stop_at:
        stop.set()
    monkeypatch.setattr(backoff, "time", SimpleNamespace(monotonic=lambda: stop.now))

    def call() -> str:
        nonlocal calls
        calls += 1
        if calls <= len(faults):
            raise faults[calls - 1](calls)
        return f"answer {calls}"

    def failed(error: Exception, pause_s: float) -> None:
        assert error.args == (pause_s,)
        heard.append(int(pause_s))

    try:
        found = retry(call, AwayError, backoff=Steady(), stopping=stop, failed=failed, **limits)
    except Exception as error:  # noqa: BLE001  (compared below)
        found = f"{type(error).__name__} {error.args[0]}"
    assert (found, heard) == (answer, told)
