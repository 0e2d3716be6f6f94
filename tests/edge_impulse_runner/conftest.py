import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import forked
from edge_impulse_runner.eim import Eim
from localdev.simulators.eim import Options, write_launcher

SHM = Path("/dev/shm")


@pytest.fixture
def tag() -> str:
    """Begins the names of this test's shared memory: other tests may run on this machine."""
    return os.urandom(3).hex()


@pytest.fixture
def launcher(tmp_path: Path, tag: str) -> Callable[..., Path]:
    """Makes an executable model: `launcher(kind="box", misbehaves="hangs")`."""

    def make(**options: Any) -> Path:
        return write_launcher(tmp_path / f"model-{len(list(tmp_path.iterdir()))}.eim", Options(tag=tag, **options))

    return make


@pytest.fixture
def no_leaks(tag: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fails the test when it leaves a socket's folder, a shared memory block or a child process behind."""
    folder = tempfile.mkdtemp(prefix="t-", dir="/tmp")
    monkeypatch.setattr(tempfile, "tempdir", folder)
    forked.begin()
    before = children()
    yield
    left = [path.name for path in Path(folder).iterdir()]
    shutil.rmtree(folder)
    assert left == []
    assert list(SHM.glob(f"shm-{tag}*")) == []
    assert children() <= before


def children() -> set[str]:
    """Process ids of our children, zombies included."""
    return {pid for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()}


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
