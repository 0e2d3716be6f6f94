import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from faulty_logs import FaultySink
from privileged_support import Device


@pytest.fixture
def sink() -> Iterator[FaultySink]:
    made = FaultySink()
    yield made
    made.close()


@pytest.fixture(scope="module")
def folders() -> Iterator[Device]:
    with tempfile.TemporaryDirectory(prefix="edgeml-root-") as folder:
        made = Device(Path(folder))
        made.deploy("first")
        made.lend()
        yield made


@pytest.fixture
def device(folders: Device, request: pytest.FixtureRequest) -> Device:
    folders.forget()
    folders.deploy(request.node.name)
    return folders
