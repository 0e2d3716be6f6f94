"""One lifecycle step's processes: a shell, whose output goes to the log line by line, and all that it starts.

A process belongs to a step if it is in the session of its first process, or if its environment holds the component's
IPC token: sudo puts what it runs into a session of its own, and a daemon leaves its parent's.
"""

import asyncio
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

TERMINATE_SECONDS = 5.0
KILL_SECONDS = 2.0
MAX_LINE_BYTES = 1024 * 1024
_POLL_SECONDS = 0.02
_LINE_END = re.compile(rb"\r\n|\n|\r")

Copy = Callable[[str, str], None]
"""Takes the stream's name (stdout, stderr) and one line."""


class _Copier:
    """Reads a pipe as it fills and gives out its lines, trimmed, as the nucleus does."""

    def __init__(self, pipe: IO[bytes], name: str, copy: Copy) -> None:
        self._pipe = pipe
        self._name = name
        self._copy = copy
        self._partial = b""
        self._loop = asyncio.get_running_loop()
        os.set_blocking(pipe.fileno(), False)
        self._loop.add_reader(pipe.fileno(), self.read)

    def read(self) -> None:
        """Takes what is in the pipe."""
        while not self._pipe.closed:
            try:
                data = os.read(self._pipe.fileno(), 65536)
            except BlockingIOError:
                return
            if not data:
                self.close()
                return
            self._take(data)

    def _take(self, data: bytes) -> None:
        data = self._partial + data
        # A trailing \r may be the first half of \r\n.
        held = b"\r" if data.endswith(b"\r") else b""
        *lines, self._partial = _LINE_END.split(data[: len(data) - len(held)])
        self._partial += held
        for line in lines:
            self._emit(line)
        if len(self._partial) > MAX_LINE_BYTES:
            self._emit(self._partial)
            self._partial = b""

    def _emit(self, line: bytes) -> None:
        self._copy(self._name, line.decode(errors="replace").strip())

    def close(self) -> None:
        """Closes the pipe and gives out what has no line end."""
        if self._pipe.closed:
            return
        self._loop.remove_reader(self._pipe.fileno())
        self._pipe.close()
        if self._partial:
            self._emit(self._partial)
            self._partial = b""


class Process:
    """A running script. `exited` is done with its exit code; negative means a signal."""

    def __init__(
        self, command: Sequence[str], cwd: Path, env: Mapping[str, str], copy: Copy, *, open_stdin: bool = True
    ) -> None:
        """Starts `command`, a shell or sudo before it. OSError if that fails.

        The Java nucleus leaves stdin open, so that a script which reads it waits instead of seeing its end.
        """
        loop = asyncio.get_running_loop()
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.PIPE if open_stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            umask=0o022,
        )
        assert self._process.stdout and self._process.stderr  # noqa: S101  (they are pipes)
        self._through_sudo = command[0] == "sudo"
        self._mark = f"SVCUID={env.get('SVCUID', '')}".encode() if env.get("SVCUID") else None
        self.paused = False
        self._copiers = [
            _Copier(self._process.stdout, "stdout", copy),
            _Copier(self._process.stderr, "stderr", copy),
        ]
        self.exited: asyncio.Future[int] = loop.create_future()
        self._pidfd = os.pidfd_open(self._process.pid)
        loop.add_reader(self._pidfd, self._reap)

    @property
    def pid(self) -> int:
        """Process id of the shell; of sudo as long as it has not started the shell."""
        return _below_sudo(self._process.pid) if self._through_sudo else self._process.pid

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        code = self._process.wait()
        for copier in self._copiers:
            copier.read()
        self.exited.set_result(code)

    async def pause(self) -> None:
        """Stops all processes for the time being."""
        self.paused = True
        for pid, _ in await self._members():
            _signal(pid, signal.SIGSTOP)

    async def resume(self) -> None:
        """Lets them go on."""
        self.paused = False
        for pid, _ in await self._members():
            _signal(pid, signal.SIGCONT)

    async def stop(self) -> None:
        """Ends all processes: SIGTERM, and SIGKILL to what is left after five seconds."""
        if self.paused:
            await self.resume()
        for number, seconds in ((signal.SIGTERM, TERMINATE_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
            deadline = time.monotonic() + seconds
            told: set[tuple[int, str]] = set()
            while members := await self._members():
                for member in sorted(members - told, reverse=True):  # the nucleus, too, tells the parent last
                    _signal(member[0], number)
                told |= members
                while any(_started(pid) == start for pid, start in members) and time.monotonic() < deadline:
                    await asyncio.sleep(_POLL_SECONDS)
                if time.monotonic() >= deadline:
                    break
            if not members:
                break
        await self.exited
        for copier in self._copiers:
            copier.read()
            copier.close()
        if self._process.stdin:
            self._process.stdin.close()

    async def _members(self) -> set[tuple[int, str]]:
        return await asyncio.to_thread(_running, self._belongs)

    def _belongs(self, entry: str, fields: list[str]) -> bool:
        if str(self._process.pid) in (fields[_GROUP], fields[_SESSION]):
            return True
        return self._mark is not None and self._mark in _environment(entry)


async def end_leftovers(socket: Path, work: Path) -> int:
    """Ends what a core that was killed has left running: in a work folder, and for its socket. Their number."""
    mark = f"AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT={socket}".encode()

    def left(entry: str, _fields: list[str]) -> bool:
        try:
            return Path(entry, "cwd").readlink().is_relative_to(work) and mark in _environment(entry)
        except OSError:
            return False

    found = await asyncio.to_thread(_running, left)
    for number, seconds in ((signal.SIGTERM, TERMINATE_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
        deadline = time.monotonic() + seconds
        for pid, _ in found:
            _signal(pid, number)
        while any(_started(pid) == start for pid, start in found) and time.monotonic() < deadline:
            await asyncio.sleep(_POLL_SECONDS)
    return len(found)


def _running(belongs: Callable[[str, list[str]], bool]) -> set[tuple[int, str]]:
    """Id and start time of every process that runs and belongs. Zombies, which only their parent can remove, do not."""
    found = set()
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):  # noqa: PTH208
        fields = _fields(pid)
        if fields and pid != os.getpid() and belongs(f"/proc/{pid}", fields):
            found.add((pid, fields[_START]))
    return found


def _environment(entry: str) -> list[bytes]:
    """The variables that a process was started with; none of one that is another user's or has just ended."""
    try:
        with open(f"{entry}/environ", "rb") as variables:  # noqa: PTH123  (asked of every process of the machine)
            return variables.read().split(b"\0")
    except OSError:
        return []


_STATE, _PARENT, _GROUP, _SESSION, _START = 0, 1, 2, 3, 19  # of /proc/PID/stat, after the name


def _fields(pid: int) -> list[str] | None:
    """What /proc tells of a process that runs, None of one that does not."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as stat:  # noqa: PTH123  (asked of every process)
            fields = stat.read().rpartition(b")")[2].decode().split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[_STATE] in ("Z", "X") else fields


def _started(pid: int) -> str | None:
    fields = _fields(pid)
    return fields[_START] if fields else None


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _below_sudo(pid: int) -> int:
    """The first process below `pid` that is no sudo, else `pid`: sudo may keep a second one of itself as a monitor."""
    current = pid
    while True:
        children = Path(f"/proc/{current}/task/{current}/children")
        try:
            below = children.read_text().split()
            name = Path(f"/proc/{below[0]}/comm").read_text().strip() if below else ""
        except OSError:
            return pid
        if not below:
            return pid
        current = int(below[0])
        if name != "sudo":
            return current
