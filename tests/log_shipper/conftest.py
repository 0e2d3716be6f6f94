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
        poisoned = (
            f"open({str(made.work / 'pip.conf')!r}, 'w').write('[global]\\nlog = {made.loot}\\nindex-url = http://[::1]:9\\n')",
            *(f"open({str(made.work / name)!r}, 'w').write({made.evil()!r})" for name in ("pip.py", "ensurepip.py")),
        )
        made.attack(*poisoned)
        done = made.step("install", HOME=str(made.work), TMPDIR=str(made.work), PIP_LOG=str(made.loot))
        assert done.returncode == 0, done.stderr
        assert not made.loot.exists()
        yield made


@pytest.fixture
def device(folders: Device, request: pytest.FixtureRequest) -> Device:
    folders.forget()
    folders.deploy(request.node.name)
    return folders
