"""A device, and a server with its artifacts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from installation_support import Device
from ota_support import FileServer


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as running:
        yield running


@pytest.fixture
def device(tmp_path: Path, server: FileServer) -> Device:
    return Device(tmp_path, server)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between attempts at a download."""
    monkeypatch.setattr("model_updater.download.FIRST_PAUSE_S", 0.01)
