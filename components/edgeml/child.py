"""A program that comes and goes: in a group of its own, paced, listened to, and ended with all that it started."""

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from edgeml.errors import ChildError
from edgeml.pace import Ration

KILLED_S = 1.0  # until what was sent SIGKILL is gone, unless a driver holds it
LINES, LINE_BYTES = 8, 500
_POLL_S, _LOOK_S = 0.01, 0.25
_READ_BYTES, _FLOOD_PAUSE_S = 65_536, 0.01


@dataclass(frozen=True)
class Program:
    """What is run, and how it is ended: each signal of `stop` (0 for none), and the seconds that are waited after it.

    Whatever is left of its group then is killed. `environment` is added to our own. `starts` are shared by all
    programs that the limit is for; without it whoever starts them is the pace.
    """

    words: Sequence[str | Path]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop: tuple[tuple[int, float], ...] = ((signal.SIGTERM, 1.0),)
    starts: Ration | None = None


class Child:
    """`program`, started. `stdout`, `stderr` and `pass_fds` are as for Popen; somebody has to read each PIPE.

    Raises ChildError when it cannot be started, or too often. All methods are for any thread.
    """

    def __init__(
        self,
        program: Program,
        *,
        stdout: int = subprocess.PIPE,
        stderr: int = subprocess.STDOUT,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.program = program
        if (limit := program.starts) is not None and not limit.take():
            raise ChildError(f"it was started {limit.most} times within {limit.within_s:g} s")
        self._lock = threading.Lock()  # once it is reaped its number may be another's
        try:
            self._process = subprocess.Popen(
                program.words,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                pass_fds=pass_fds,
                env={**os.environ, **program.environment},
                start_new_session=True,
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            raise ChildError(getattr(error, "strerror", None) or str(error)) from error

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def stdout(self) -> IO[bytes]:
        """The pipe of that name."""
        assert self._process.stdout is not None  # noqa: S101  (for whoever asked for it)
        return self._process.stdout

    @property
    def stderr(self) -> IO[bytes]:
        """The pipe of that name."""
        assert self._process.stderr is not None  # noqa: S101  (as above)
        return self._process.stderr

    def exit_code(self, timeout: float = 0.0) -> int | None:
        """The exit code, below 0 for a signal; None when it still runs after `timeout` seconds. It is not reaped."""
        deadline = time.monotonic() + timeout
        while True:
            with self._lock:
                if self._process.returncode is not None:
                    return self._process.returncode
                with contextlib.suppress(ChildProcessError):
                    done = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                    if done is not None:
                        return done.si_status if done.si_code == os.CLD_EXITED else -done.si_status
            if time.monotonic() >= deadline:
                return None
            time.sleep(_POLL_S)

    def signal(self, number: int) -> None:
        """To its group; nothing happens when it is gone, or another user's by now."""
        with self._lock:
            if self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(self.pid, number)

    def stop(self) -> None:
        """End it and its group, within the seconds of the program's `stop` and KILLED_S. Its pipes are the reader's."""
        for number, seconds in self.program.stop:
            self.signal(number)
            if self.exit_code(seconds) is not None:
                break
        self.signal(signal.SIGKILL)
        if self.exit_code(KILLED_S) is not None:
            with self._lock:
                self._process.wait()


class LastWords:
    """Reads a pipe on a thread of its own, from now on, and keeps the last lines. Of a flood it takes a bounded part.

    `said` is told each line that is kept. `close` closes the pipe, too.
    """

    def __init__(self, pipe: IO[bytes], name: str, said: Callable[[str], object] = lambda line: None) -> None:
        self.lines: deque[str] = deque(maxlen=LINES)
        self._pipe, self._said = pipe, said
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, name=name, daemon=True)
        self._thread.start()

    def wait(self, timeout: float) -> None:
        """Until the pipe has ended, for `timeout` seconds at most."""
        self._thread.join(timeout)

    def close(self) -> None:
        self._closed.set()
        self._thread.join(2 * _LOOK_S)
        if not self._thread.is_alive():
            self._pipe.close()

    def _read(self) -> None:
        partial = b""
        while not self._closed.is_set():
            if not select.select([self._pipe], [], [], _LOOK_S)[0]:
                continue
            data = os.read(self._pipe.fileno(), _READ_BYTES)
            if not data:
                break
            *lines, partial = (partial + data).split(b"\n")
            partial = partial[:LINE_BYTES]
            for line in lines[-LINES:]:
                self._keep(line)
            if len(data) >= _READ_BYTES // 2:
                self._closed.wait(_FLOOD_PAUSE_S)
        self._keep(partial)

    def _keep(self, line: bytes) -> None:
        text = line[:LINE_BYTES].decode(errors="replace").strip()
        if text:
            self.lines.append(text)
            self._said(text)


def signal_name(number: int) -> str:
    """`SIGTERM`; of the signals for real time only two have names, the others are `signal 40`."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
