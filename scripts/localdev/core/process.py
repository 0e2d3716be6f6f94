"""One lifecycle step's process: a shell in its own process group, whose output goes to the log line by line."""

import asyncio
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
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

    def __init__(self, script: str, cwd: Path, env: Mapping[str, str], copy: Copy) -> None:
        """Starts `sh -c script`. OSError if that fails."""
        loop = asyncio.get_running_loop()
        # The nucleus leaves stdin open, so that a script which reads it waits instead of seeing its end.
        self._process = subprocess.Popen(
            ["sh", "-c", script],
            cwd=cwd,
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout and self._process.stderr  # noqa: S101  (they are pipes)
        self._copiers = [
            _Copier(self._process.stdout, "stdout", copy),
            _Copier(self._process.stderr, "stderr", copy),
        ]
        self.exited: asyncio.Future[int] = loop.create_future()
        self._pidfd = os.pidfd_open(self.pid)
        loop.add_reader(self._pidfd, self._reap)

    @property
    def pid(self) -> int:
        """Process id of the shell, and id of its group."""
        return self._process.pid

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
        code = self._process.wait()
        for copier in self._copiers:
            copier.read()
        self.exited.set_result(code)

    async def stop(self) -> None:
        """Ends the whole group: SIGTERM, and SIGKILL to what is left after five seconds."""
        for number, seconds in ((signal.SIGTERM, TERMINATE_SECONDS), (signal.SIGKILL, KILL_SECONDS)):
            self._signal(number)
            deadline = time.monotonic() + seconds
            while self._alive() and time.monotonic() < deadline:
                await asyncio.sleep(_POLL_SECONDS)
            if not self._alive():
                break
        await self.exited
        for copier in self._copiers:
            copier.read()
            copier.close()
        if self._process.stdin:
            self._process.stdin.close()

    def _signal(self, number: signal.Signals) -> None:
        try:
            os.killpg(self.pid, number)
        except ProcessLookupError:
            return

    def _alive(self) -> bool:
        """Whether the group has a member that runs. Zombies, which only their parent can remove, do not count."""
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return any(_runs_in_group(entry, self.pid) for entry in Path("/proc").glob("[0-9]*/stat"))


def _runs_in_group(stat: Path, group: int) -> bool:
    try:
        fields = stat.read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return int(fields[2]) == group and fields[0] not in ("Z", "X")
