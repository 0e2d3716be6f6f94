"""Frames that a program of its own writes into a pipe, one after the other and all of one size."""

import contextlib
import fcntl
import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from camera_capture.source import Source
from edgeml import redact
from edgeml.child import Child, Program, signal_name
from edgeml.errors import ChildError, SourceError

PIPE_BYTES = 1 << 20
MAX_LOG = 64 << 10  # bytes of the program's output that are kept
MAX_READS = 64
TERM_S = 1.0
SPARE_S = 1.0  # beyond what the supervisor allows, which so is a little faster


@dataclass(frozen=True)
class Tool:
    """What is run. `words` gives its arguments, for the descriptor that its frames are to be written to.

    With `to_stdout` that is its standard output; else its standard output counts as what it prints. Lines that hold one
    of the words `telling` say what is wrong. `secrets` are URLs and the like that may appear in them.
    """

    name: str
    package: str  # of Debian
    what: str  # in messages, with its article
    words: Callable[[int], list[str]]
    telling: tuple[str, ...]
    secrets: tuple[str, ...] = ()
    to_stdout: bool = False


class Piped(Source):
    """Reads `frame_bytes` at a time into `_frame`: what the program prints goes elsewhere, and shifts none of them.

    Raises SourceError for a program that is not installed or cannot be started.
    """

    live = True

    def __init__(self, program: Tool, frame_bytes: int, stall_timeout_s: float) -> None:
        tool = shutil.which(program.name)
        if tool is None:
            raise SourceError(f"{program.name} is not installed (Debian: {program.package})")
        self._program = program
        self._limit_s = stall_timeout_s * 2 + SPARE_S
        self._log = bytearray()
        self._telling = ""
        self._frame = bytearray(frame_bytes)
        self._child, self._frames = _started(tool, program)
        self._said = self._child.stderr if program.to_stdout else self._child.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._frames, selectors.EVENT_READ)
        self._selector.register(self._said, selectors.EVENT_READ)

    def grab(self) -> bool:
        frame, filled = memoryview(self._frame), 0
        deadline = time.monotonic() + self._limit_s
        while filled < len(frame):
            ready = {key.fd for key, _ in self._selector.select(max(0.0, deadline - time.monotonic()))}
            if self._frames in ready:
                count = os.readv(self._frames, [frame[filled:]])
                if not count:
                    raise SourceError(f"{self._program.what} ended: {self._reason()}")
                filled += count
            if ready - {self._frames}:
                self._listen()
            if time.monotonic() > deadline:
                raise SourceError(f"no whole frame within {self._limit_s:g} s: {self._heard() or 'not a word'}")
        return True

    def cancel(self) -> None:
        self._child.signal(signal.SIGKILL)

    def close(self) -> None:
        """End the whole group: the program may have started others."""
        self._child.stop()
        self._selector.close()
        os.close(self._frames)
        self._said.close()

    def _listen(self) -> None:
        """Take what the program prints, so that it never waits for us; keep little of it."""
        data = os.read(self._said.fileno(), MAX_LOG)
        if not data:
            self._selector.unregister(self._said)
        self._log += data
        if len(self._log) > MAX_LOG:
            self._telling = self._heard()
            del self._log[: -MAX_LOG // 2]

    def _listen_on(self) -> None:
        """Take what it has printed until now, or a part of it where it does not stop."""
        for _ in range(MAX_READS):
            if not any(key.fd != self._frames for key, _ in self._selector.select(0)):
                return
            self._listen()

    def _heard(self) -> str:
        """The first line that tells of an error, without secrets."""
        if self._telling:
            return self._telling
        lines = self._log.decode(errors="replace").splitlines()
        telling = next((line for line in lines if any(word in line for word in self._program.telling)), "")
        return redact.text(telling, *self._program.secrets)[:300]

    def _reason(self) -> str:
        """Why the program ended, in words."""
        code = self._child.exit_code(TERM_S)
        self._listen_on()
        if code is None:
            ending = "it closed its output and did not exit"
        elif code < 0:
            name = signal_name(-code)
            ending = f"it was killed by {name if name.startswith('signal') else f'signal {-code} {name}'}"
        else:
            ending = f"exit code {code}" if code else "it reached its end"
        heard = self._heard()
        return f"{heard} ({ending})" if heard else ending


def _started(tool: str, program: Tool) -> tuple[Child, int]:
    """The process in a group of its own, and the end of the pipe from which its frames are read."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # a user's pipes are bounded in sum
            fcntl.fcntl(reading, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        child = Child(
            Program((tool, *program.words(writing)), stop=((signal.SIGTERM, TERM_S),)),
            stdout=writing if program.to_stdout else subprocess.PIPE,
            stderr=subprocess.PIPE if program.to_stdout else subprocess.STDOUT,
            pass_fds=[] if program.to_stdout else [writing],
        )
    except BaseException as error:
        os.close(reading)
        if isinstance(error, ChildError):
            raise SourceError(f"{program.name} cannot be started: {error}") from error
        raise
    finally:
        os.close(writing)
    return child, reading
