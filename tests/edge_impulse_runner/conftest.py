import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_impulse_runner.eim import Eim
from localdev.simulators.eim import Options, write_launcher

SHM = Path("/dev/shm")


@pytest.fixture
def launcher(tmp_path: Path) -> Callable[..., Path]:
    """Makes an executable model: `launcher(kind="box", misbehaves="hangs")`."""

    def make(**options: Any) -> Path:
        return write_launcher(tmp_path / f"model-{len(list(tmp_path.iterdir()))}.eim", Options(**options))

    return make


@pytest.fixture
def no_leaks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails the test when it leaves a socket's folder, a shared memory block or a child process behind."""
    folder = tempfile.mkdtemp(prefix="t-", dir="/tmp")
    monkeypatch.setattr(tempfile, "tempdir", folder)
    before = {path.name for path in SHM.glob("shm-*")}
    yield
    left = [path.name for path in Path(folder).iterdir()]
    shutil.rmtree(folder)
    assert left == []
    assert {path.name for path in SHM.glob("shm-*")} <= before
    with pytest.raises(ChildProcessError):  # no child of ours, dead or alive
        os.waitpid(-1, os.WNOHANG)


@pytest.fixture
def opened(launcher: Callable[..., Path], no_leaks: None) -> Iterator[Callable[..., Eim]]:
    """An open model: `opened(kind="box", classify_timeout_s=0.2)`; closed at the end."""
    models: list[Eim] = []

    def make(classify_timeout_s: float = 5.0, start_timeout_s: float = 10.0, **options: Any) -> Eim:
        model = Eim(launcher(**options), start_timeout_s=start_timeout_s, classify_timeout_s=classify_timeout_s)
        models.append(model)
        return model.open()

    yield make
    for model in models:
        model.close()
