"""Waiting for a word in memory that another process changes: woken at once, in short naps where that cannot be."""

import importlib
import platform
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeml import _futex
from edgeml.frames import FrameReader
from frame_support import Writer, image, small
from support import eventually


def test_a_waiter_is_woken_at_once_and_not_by_its_time_limit() -> None:
    word = np.zeros(1, np.uint32)
    thread = threading.Thread(target=_futex.wait, args=(word.ctypes.data, 0, 30.0))
    thread.start()

    def woken() -> bool:
        _futex.wake(word.ctypes.data)
        return not thread.is_alive()

    eventually(woken, 5.0, "the waiter's return")
    before = time.monotonic()
    _futex.wait(word.ctypes.data, 1, 30.0)
    assert time.monotonic() - before < 5


@pytest.fixture
def unknown_machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One whose number of the futex call nobody knows."""
    with monkeypatch.context() as patch:
        patch.setattr(platform, "machine", lambda: "riscv64")
        importlib.reload(_futex)
    yield
    importlib.reload(_futex)


def test_frames_come_without_futex_too(unknown_machine: None, tmp_path: Path) -> None:
    with Writer(tmp_path) as writer:
        reader = FrameReader("cam", directory=tmp_path)
        assert reader.read(0.05) is None
        writer.tell("write 1")
        assert reader.read(5.0) is not None


def test_wake_ups_that_bring_nothing_do_not_make_a_reader_spin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the word that readers wait on never stood still."""
    with small(tmp_path) as writer, FrameReader("cam", directory=tmp_path) as reader:
        writer.write(image(1))
        assert reader.read(1) is not None
        waits: list[float] = []
        monkeypatch.setattr(_futex, "wait", lambda address, expected, timeout: waits.append(timeout))
        assert reader.read(0.3) is None
        assert len(waits) < 330  # one each millisecond, and some before that
        writer.write(image(2))
        assert reader.read(1) is not None
