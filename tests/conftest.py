"""Options of the suite, and the promise that it leaves nothing behind."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

SHM = Path("/dev/shm")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="also run the tests that take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--soak"):
        skip = pytest.mark.skip(reason="takes minutes: ./scripts/test --soak")
        for item in items:
            if item.get_closest_marker("soak"):
                item.add_marker(skip)


@pytest.fixture(scope="session", autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Fails the last test if a process, a shared-memory file or a thread that keeps Python alive remains."""
    shared = set(SHM.iterdir()) if SHM.is_dir() else set()
    yield
    children = psutil.Process().children(recursive=True)
    left = [child.cmdline() for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
    zombies = [child.pid for child in children if child.is_running() and child.status() == psutil.STATUS_ZOMBIE]
    assert not left, f"processes are left: {left}"
    assert not zombies, f"processes were not waited for: {zombies}"
    if SHM.is_dir() and "CI" in os.environ:  # elsewhere other programs come and go
        ours = [path for path in set(SHM.iterdir()) - shared if path.stat().st_uid == os.getuid()]
        assert not ours, f"shared memory is left: {ours}"
    threads = [
        thread for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()
    ]
    assert not threads, f"threads are left: {threads}"
