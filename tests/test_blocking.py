"""That a blocked event loop is found: each kind of waiting on a loop and beside one, and in a running core."""

import asyncio
import fcntl
import os
import queue
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from blocking import Watch
from localdev.core import LocalCore

SHORT_S = 0.01


@contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    first, second = socket.socketpair()
    with first, second:
        yield first, second


def wait_for_peer(_: Path) -> None:
    with connected() as (first, second):
        second.sendall(b"x")
        first.recv(1)


def poll_peer(_: Path) -> None:
    with connected() as (first, _second):
        first.setblocking(False)
        with pytest.raises(BlockingIOError):
            first.recv(1)


def wait_for_child(_: Path) -> None:
    subprocess.run(["sleep", str(SHORT_S)], check=True)


def look_after_child(_: Path) -> None:
    with subprocess.Popen(["sleep", "0"]) as child:
        while child.poll() is None:
            pass


def join(_: Path) -> None:
    thread = threading.Thread(target=time.sleep, args=[SHORT_S])
    thread.start()
    thread.join()


def ask_queue(_: Path) -> None:
    with pytest.raises(queue.Empty):
        queue.Queue[int]().get(timeout=SHORT_S)


def lock_file(folder: Path) -> None:
    with (folder / "lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)


def try_lock(folder: Path) -> None:
    with (folder / "lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def read_pipe(_: Path) -> None:
    reading, writing = os.pipe()
    try:
        os.close(writing)
        os.read(reading, 1)
    finally:
        os.close(reading)


def write_file(folder: Path) -> None:
    (folder / "small").write_bytes(b"x")


KINDS: list[tuple[Callable[[Path], Any], str]] = [
    (lambda _: time.sleep(SHORT_S), "time.sleep"),
    (lambda _: time.sleep(0), ""),
    (wait_for_peer, "socket.recv"),
    (poll_peer, ""),
    (lambda _: socket.getaddrinfo("localhost", 80), "socket.getaddrinfo"),
    (wait_for_child, "Popen.wait"),
    (look_after_child, ""),
    (join, "Thread.join"),
    (lambda _: threading.Thread(target=int).start(), ""),
    (ask_queue, "Condition.wait"),
    (lock_file, "fcntl.flock"),
    (try_lock, ""),
    (read_pipe, "os.read"),
    (write_file, ""),
    (lambda folder: list(folder.glob("*")), "os.scandir"),
    (lambda folder: shutil.rmtree(folder / "none", ignore_errors=True), "shutil.rmtree"),
]


@pytest.mark.parametrize(
    ("wait", "name"), KINDS, ids=[f"{number}-{name or 'none'}" for number, (_, name) in enumerate(KINDS)]
)
def test_each_kind_of_waiting(tmp_path: Path, watch_of_loops: Watch, wait: Callable[[Path], Any], name: str) -> None:
    async def on_a_loop() -> None:
        wait(tmp_path)

    async def beside_a_loop() -> None:
        await asyncio.to_thread(wait, tmp_path)

    asyncio.run(beside_a_loop())
    wait(tmp_path)
    assert watch_of_loops.take() == []
    asyncio.run(on_a_loop())
    found = watch_of_loops.take()
    assert any(name in each.splitlines()[0] and wait.__code__.co_name in each for each in found) if name else not found


def test_what_makes_a_core_wait_is_found(tmp_path: Path, watch_of_loops: Watch) -> None:
    with LocalCore(tmp_path / "core") as core:
        core.subscribe("a", lambda *_: time.sleep(SHORT_S))
        core.publish("a", b"message")
    (found,) = watch_of_loops.take()
    assert found.startswith("time.sleep, called by") and __file__ in found
