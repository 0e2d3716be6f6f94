"""Ends all that a model started, also what left its process group by a session of its own.

Each model's processes inherit a mark in their environment. And this process is the reaper of orphans (prctl(2),
PR_SET_CHILD_SUBREAPER), so that what drops its mark and outlives its parent becomes our child, where it is found.
"""

import contextlib
import ctypes
import os
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path

from edgeml.child import Child, Program

_MARK = "EDGEML_EIM_FOLDER"
_SUBREAPER = 36
_ROUNDS, _PAUSE_S = 50, 0.01
_lock = threading.Lock()  # between a fork and its exec a child has no mark yet
_known: set[int] = set()  # children that are no orphans
_models: dict[Path, int] = {}


def started(program: Program, folder: Path) -> Child:
    """A model, marked by its `folder`; its output in one pipe. Raises ChildError."""
    with _lock:
        _reap_orphans(True)
        if not _models:
            _known.clear()
            _known.update(_children())
        child = Child(replace(program, environment={_MARK: str(folder)}))
        _known.add(child.pid)
        _models[folder] = child.pid
        return child


def end(folder: Path) -> None:
    """Kill what the model of `folder` left running: to be called when the model itself has ended."""
    mark = f"{_MARK}={folder}".encode()
    with _lock:
        _models.pop(folder, None)
    try:
        _kill(mark)
    finally:
        with _lock:
            if not _models:  # nobody would wait for orphans that are none of a model
                _reap_orphans(False)


def _kill(mark: bytes) -> None:
    for _ in range(_ROUNDS):
        with _lock:
            left = [pid for pid in _processes() if pid != os.getpid() and _belongs(pid, mark)]
        if not left:
            return
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(OSError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(_PAUSE_S)


def _reap_orphans(wanted: bool) -> None:
    with contextlib.suppress(OSError, AttributeError):  # without it, the mark alone has to do
        ctypes.CDLL(None).prctl(_SUBREAPER, int(wanted), 0, 0, 0)


def _children() -> set[int]:
    return {int(pid) for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()}


def _processes() -> list[int]:
    return [int(entry) for entry in os.listdir("/proc") if entry.isdecimal()]  # noqa: PTH208  (names are enough)


def _belongs(pid: int, mark: bytes) -> bool:
    """Marked so; or an orphan of ours, without any model's mark, in a session that is not ours."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        state, parent, session = stat[0], int(stat[1]), int(stat[3])
        marks = _marks(pid)
    except (OSError, ValueError, IndexError):
        return False  # another user's, or gone
    if mark in marks:
        return pid not in _known or state != "Z"
    return not marks and parent == os.getpid() and session != os.getsid(0) and pid not in _known


def _marks(pid: int) -> list[bytes]:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except ProcessLookupError:  # it has died, and waits to be reaped
        return []
    return [item for item in environment.split(b"\0") if item.startswith(_MARK.encode())]
