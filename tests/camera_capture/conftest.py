"""A component with two cameras, of which one is to be made bad, and a server that says what it is told."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from camera_capture import component
from camera_faults_support import Running
from hostile_http import RawServer, raw_server, sends
from support import eventually


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    monkeypatch.setattr(component, "KEEP_S", 0.05)
    made = Running(tmp_path)
    made.context.workers.first_s = 0.02
    yield made
    monkeypatch.undo()
    made.context.stopping.set()
    made.component.stop()
    assert list(made.rings.iterdir()) == []
    eventually(lambda: not any(t.name.startswith("read-") for t in threading.enumerate()), what="the end of reads")


@pytest.fixture
def server() -> Iterator[RawServer]:
    with raw_server(sends(b"")) as running:
        yield running
