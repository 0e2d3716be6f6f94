"""Pauses between the attempts of a camera whose source ends, on a clock of the test's own."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from camera_capture import attempt, capture
from camera_capture.kinds.test_pattern import PatternCamera
from camera_capture.source import Source
from camera_support import configured
from edgeml.component import Context
from edgeml.errors import SourceError
from edgeml.health import Health
from ipc_support import FakeIpc

SLOW = configured(type="test_pattern", reconnect_min_s=1, reconnect_max_s=30, stall_timeout_s=600)


class Pauses(threading.Event):
    """An end that is waited for in no time: `asked` says how long each wait was to be, `now` where that leads."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.asked = 1000.0, list[float]()

    def wait(self, timeout: float | None = None) -> bool:
        if not self.is_set():
            self.asked.append(timeout or 0.0)
            self.now += timeout or 0.0
        return self.is_set()


class Scripted(Source):
    """The next of `attempts`: so many frames in so many seconds, and then the end of the stream."""

    live = True

    def __init__(self, attempts: Iterator[tuple[int, float]], pauses: Pauses) -> None:
        self._attempt, self._pauses = next(attempts, None), pauses
        self._frames = self._attempt[0] if self._attempt else 0

    def grab(self) -> bool:
        if self._attempt is None:
            self._pauses.set()
        elif self._frames:
            self._frames -= 1
            return True
        else:
            self._pauses.now += self._attempt[1]
        raise SourceError("the stream ended")

    def retrieve(self) -> Any:
        return np.zeros((16, 32, 3), np.uint8)


def played(tmp_path: Path, patch: pytest.MonkeyPatch, attempts: list[tuple[int, float]], share: float) -> list[float]:
    """The pauses after these attempts, each the `share` of what it may last."""
    pauses, script = Pauses(), iter(attempts)
    now = SimpleNamespace(monotonic=lambda: pauses.now, monotonic_ns=time.monotonic_ns, time_ns=time.time_ns)
    for module in (attempt, capture):
        patch.setattr(module, "time", now)
    patch.setattr("random.uniform", lambda low, high: low + share * (high - low))
    patch.setattr(PatternCamera, "open", lambda camera: Scripted(script, pauses))
    context = Context(ipc=FakeIpc(), health=Health("x", "1"), work=tmp_path, root=tmp_path, thing_name="t")
    worker = capture.CameraWorker("c", SLOW, context, tmp_path, lambda frame: None)
    worker.stopping = pauses
    worker.start()
    assert threading.Event.wait(pauses, 20)
    worker.stop()
    return pauses.asked


@pytest.mark.parametrize(
    ("attempts", "pauses"),
    [
        ([], []),
        ([(0, 0)] * 7, [1, 2, 4, 8, 16, 30, 30]),
        ([(1, 0)] * 7, [1, 2, 4, 8, 16, 30, 30]),
        ([(1, 0), (0, 0), (1, 1.99), (0, 0)], [1, 2, 4, 8]),
        ([(1, 0), (0, 0), (1, 2.0), (0, 0)], [1, 2, 4, 8]),
        ([(1, 0), (0, 0), (1, 2.01), (0, 0)], [1, 2, 1, 2]),
        ([(1, 0), (0, 0), (0, 60), (0, 0)], [1, 2, 4, 8]),
    ],
    ids=["none", "no frame", "a frame", "just below its pause", "its pause", "just above", "long without a frame"],
)
def test_pauses_grow_until_a_source_holds_longer_than_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, attempts: list[tuple[int, float]], pauses: list[float]
) -> None:
    assert played(tmp_path, monkeypatch, attempts, 1.0) == pauses


@pytest.mark.parametrize(("share", "pause"), [(0.0, 0.5), (0.49, 0.5), (0.5, 0.5), (0.51, 0.51)])
def test_no_source_is_opened_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float, pause: float
) -> None:
    assert played(tmp_path, monkeypatch, [(0, 0)], share) == [pause]
