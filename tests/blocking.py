"""Finds what makes an event loop wait: whatever else it serves, such as other components of a core, waits with it.

What can block is wrapped while `watched` lasts, and told with its stack when a thread on which asyncio runs calls it.
Small local files are read and written on loops here, and do not count; whole trees of them do. A contended
threading.Lock is not seen, for its type cannot be wrapped.
"""

import asyncio
import fcntl
import functools
import inspect
import os
import shutil
import socket
import stat
import subprocess
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import paho.mqtt.client
import pytest

from localdev.core import logs

Blocks = Callable[..., bool]  # whether a call with these arguments would wait


def _always(*_: Any, **__: Any) -> bool:
    return True


def _sleeps(seconds: float) -> bool:
    return seconds > 0


def _runs(process: subprocess.Popen[Any], *_: Any, **__: Any) -> bool:
    return process.poll() is None


def _alive(thread: threading.Thread, timeout: float | None = None) -> bool:
    return timeout != 0 and thread.is_alive()


def _waits(_: threading.Condition, timeout: float | None = None) -> bool:
    return timeout != 0


def _waits_for_peer(connection: socket.socket, *_: Any, **__: Any) -> bool:
    return connection.gettimeout() != 0


def _waits_for_lock(_: Any, operation: int, *__: Any) -> bool:
    return not operation & (fcntl.LOCK_NB | fcntl.LOCK_UN)


def _waits_for_pipe(descriptor: int, *_: Any) -> bool:
    return os.get_blocking(descriptor) and not stat.S_ISREG(os.fstat(descriptor).st_mode)


PEER = ("accept", "connect", "recv", "recv_into", "recvfrom", "recvmsg", "send", "sendall", "sendto")
CALLS: dict[tuple[Any, str], Blocks] = {
    (time, "sleep"): _sleeps,
    (subprocess.Popen, "wait"): _runs,
    (subprocess.Popen, "communicate"): _runs,
    (threading.Thread, "join"): _alive,
    (threading.Condition, "wait"): _waits,  # queues, events and futures wait by it
    **{(socket.socket, name): _waits_for_peer for name in PEER},
    (socket, "getaddrinfo"): _always,
    (fcntl, "flock"): _waits_for_lock,
    (fcntl, "lockf"): _waits_for_lock,
    (os, "read"): _waits_for_pipe,
    (os, "write"): _waits_for_pipe,
    (os, "fsync"): _always,
    (os, "scandir"): _always,
    **{(shutil, name): _always for name in ("copyfile", "copyfileobj", "copytree", "move", "rmtree")},
}
BRIEF = {  # functions that wait for what comes at once, in the files of these modules
    threading: {"start"},  # the new thread runs
    subprocess: {"_execute_child"},  # the child has begun, or could not
    asyncio.base_events: {"shutdown_default_executor"},  # its threads have ended
    paho.mqtt.client: {"_socketpair_compat"},  # it connects to itself
    logs: {"_roll"},  # the names in one folder, once a log is full
}


class Watch:
    """What has blocked until now, each with its stack."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def take(self) -> list[str]:
        """What was found since the last time."""
        taken, self.found = self.found, []
        return taken

    def wrap(self, call: Callable[..., Any], name: str, blocks: Blocks) -> Callable[..., Any]:
        @functools.wraps(call)
        def wrapped(*arguments: Any, **named: Any) -> Any:
            if _on_a_loop() and blocks(*arguments, **named):
                here = inspect.currentframe()
                caller = here and here.f_back
                if not _is_brief(caller):
                    self.found.append(f"{name}, called by\n" + "".join(traceback.format_stack(caller, 12)))
            return call(*arguments, **named)

        return wrapped


@contextmanager
def watched() -> Iterator[Watch]:
    """Until the end of the block, on every thread of this process."""
    watch = Watch()
    with pytest.MonkeyPatch.context() as patch:
        for (owner, name), blocks in CALLS.items():
            patch.setattr(owner, name, watch.wrap(getattr(owner, name), f"{owner.__name__}.{name}", blocks))
        yield watch


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _is_brief(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name in _BRIEF.get(frame.f_code.co_filename, ()):
            return True
        frame = frame.f_back
    return False


_BRIEF = {module.__file__: names for module, names in BRIEF.items()}
