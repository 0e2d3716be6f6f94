"""The monitor as a process on the rings of a folder, and a camera in it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeml.frames import FrameWriter
from monitor_support import QUIET, Clock
from shown_pictures_support import Rig
from support import Standalone, eventually


@pytest.fixture(autouse=True)
def attempts_cost_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """To sign in to a server in this process; one that is a process of its own takes its 50 ms for each."""
    monkeypatch.setattr("monitor.access.SCRYPT", {"n": 2, "r": 8, "p": 1})


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="module")
def rings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rings")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, rings: Path) -> Iterator[Standalone]:
    config = {**QUIET, "auth": "off", "ring_directory": str(rings), "fps": 50}
    with Standalone("monitor", config, tmp_path_factory.mktemp("monitor")) as running:
        eventually(lambda: "address=http://" in running.log, what="the page's address")
        yield running


@pytest.fixture
def base(running: Standalone) -> str:
    return running.log.partition("address=http://")[2].split()[0].rstrip("/")


@pytest.fixture
def camera(rings: Path) -> Iterator[FrameWriter]:
    with FrameWriter("door", width=1280, height=720, directory=rings) as writer:
        yield writer


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path)
    yield rig
    rig.close()
