"""The process of an .eim model: its socket's folder, its last words, and its end."""

import contextlib
import errno
import logging
import os
import select
import shutil
import signal
import subprocess
import tempfile
import threading
from collections import deque
from pathlib import Path

from edge_impulse_runner import descendants, shared
from edge_impulse_runner.errors import EimGone
from edge_impulse_runner.protocol import SharedMemory
from edgeml.log import kv

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 0.5  # for each of: closed socket, SIGTERM, SIGKILL
_MAX_ADDRESS = 107  # bytes in sockaddr_un.sun_path
_LAST_LINES, _LINE_LENGTH = 8, 500
_READ_BYTES, _LOOK_S, _FLOOD_PAUSE_S = 65_536, 0.25, 0.01


class ModelProcess:
    """Runs `model <socket>` from the start; the model listens on `address` when it is ready. Raises EimGone.

    The socket lies in a folder of its own in `folder`, or in the system's temporary one if that makes too long a name.
    What else lies there lets `sweep` clean up after a runner that was killed.
    """

    def __init__(self, model: Path, folder: Path) -> None:
        fits = len(bytes(folder / "eim-12345678" / "s")) <= _MAX_ADDRESS
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="eim-", dir=folder if fits else None))
        except OSError as error:
            raise EimGone(f"no folder for the model's socket: {error}") from error
        self.address = self._folder / "s"
        self._lines: deque[str] = deque(maxlen=_LAST_LINES)
        try:
            if len(bytes(self.address)) > _MAX_ADDRESS:
                raise OSError(errno.ENAMETOOLONG, f"TMPDIR is too long for a socket: {self._folder.parent}")
            self._process = descendants.started(
                [model, self.address],
                self._folder,
            )
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise EimGone(f"cannot run {model}: {getattr(error, 'strerror', None) or error}") from error
        with contextlib.suppress(OSError):  # a full disk: only a later sweep would need it
            (self._folder / "process").write_text(f"{self.pid} {_started(self.pid)}")
        self._stopped = threading.Event()
        self._reader = threading.Thread(target=self._read, name="eim-output", daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def remember(self, blocks: list[SharedMemory]) -> None:
        """Note down the model's shared memory."""
        with contextlib.suppress(OSError):
            (self._folder / "shm").write_text("\n".join(block.name for block in blocks))

    def ended(self) -> bool:
        return self._process.poll() is not None

    def obituary(self) -> str:
        """How it ended and what it said last; to be asked when it has ended or is about to."""
        try:
            code = self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return "it still runs"
        self._reader.join(STOP_TIMEOUT_S)
        how = f"exit code {code}" if code >= 0 else f"killed by {_signal(-code)}"
        return f"{how}: {' | '.join(self._lines)}" if self._lines else how

    def stop(self) -> None:
        """Let it follow its closed socket, else signal its whole group; reap it and remove its folder."""
        for number in (None, signal.SIGTERM, signal.SIGKILL):
            if number is not None:
                with contextlib.suppress(OSError):  # it went, or became another user
                    os.killpg(self._process.pid, number)
            try:
                self._process.wait(STOP_TIMEOUT_S)
                break
            except subprocess.TimeoutExpired:
                continue
        with contextlib.suppress(OSError):  # what is left of its group
            os.killpg(self._process.pid, signal.SIGKILL)
        descendants.end(self._folder)
        self._stopped.set()
        self._reader.join(STOP_TIMEOUT_S)
        if self._process.stdout is not None and not self._reader.is_alive():
            self._process.stdout.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _read(self) -> None:
        """Keep the last lines; of a flood as much as comes, in pieces of a bounded size, at a bounded rate."""
        output = self._process.stdout
        assert output is not None  # noqa: S101  (a pipe)
        partial = b""
        while not self._stopped.is_set():
            if not select.select([output], [], [], _LOOK_S)[0]:
                continue
            data = os.read(output.fileno(), _READ_BYTES)
            if not data:
                break
            *lines, partial = (partial + data).split(b"\n")
            partial = partial[:_LINE_LENGTH]
            for line in lines[-_LAST_LINES:]:
                self._say(line)
            if len(data) >= _READ_BYTES // 2:
                self._stopped.wait(_FLOOD_PAUSE_S)
        self._say(partial)

    def _say(self, line: bytes) -> None:
        text = line[:_LINE_LENGTH].decode(errors="replace").strip()
        if text:
            self._lines.append(text)
            log.debug("model says %s", kv(line=text))


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # of those for real time only two have names
        return f"signal {number}"


def sweep(folder: Path) -> None:
    """End models, and remove what they left, whose runner was killed before it could close them."""
    for left in folder.glob("eim-*"):
        with contextlib.suppress(OSError, ValueError):  # it never ran, or has ended
            pid, started = (left / "process").read_text().split()
            if _started(int(pid)) == started:
                os.killpg(int(pid), signal.SIGKILL)
        descendants.end(left)
        with contextlib.suppress(OSError, ValueError):  # it never said what memory it has
            for name in (left / "shm").read_text().split():
                shared.remove_block(name)
        shutil.rmtree(left, ignore_errors=True)
        log.warning("removed what a killed runner left %s", kv(path=left))


def _started(pid: int) -> str:
    """The start time in clock ticks, which tells a process from a later one of the same id. Raises OSError."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
