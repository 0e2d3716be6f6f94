"""The process of an .eim model: its socket's folder, its last words, and its end."""

import contextlib
import errno
import logging
import os
import shutil
import signal
import tempfile
from functools import partial
from pathlib import Path

from edge_impulse_runner import descendants, shared
from edge_impulse_runner.errors import EimGone
from edge_impulse_runner.protocol import SharedMemory
from edgeml.child import LastWords, Program, signal_name
from edgeml.errors import ChildError
from edgeml.log import kv
from edgeml.pace import Ration

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 0.5
_STOP = ((0, STOP_TIMEOUT_S), (signal.SIGTERM, STOP_TIMEOUT_S))  # at first its socket is closed
_MAX_ADDRESS = 107  # bytes in sockaddr_un.sun_path


class ModelProcess:
    """Runs `model <socket>` from the start; the model listens on `address` when it is ready. Raises EimGone.

    The socket lies in a folder of its own in `folder`, or in the system's temporary one if that makes too long a name.
    What else lies there lets `sweep` clean up after a runner that was killed.
    """

    def __init__(self, model: Path, folder: Path, starts: Ration | None = None) -> None:
        fits = len(bytes(folder / "eim-12345678" / "s")) <= _MAX_ADDRESS
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="eim-", dir=folder if fits else None))
        except OSError as error:
            raise EimGone(f"no folder for the model's socket: {error}") from error
        self.address = self._folder / "s"
        try:
            if len(bytes(self.address)) > _MAX_ADDRESS:
                raise OSError(errno.ENAMETOOLONG, f"TMPDIR is too long for a socket: {self._folder.parent}")
            self._child = descendants.started(Program((model, self.address), stop=_STOP, starts=starts), self._folder)
        except (OSError, ChildError) as error:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise EimGone(f"cannot run {model}: {getattr(error, 'strerror', None) or error}") from error
        with contextlib.suppress(OSError):  # a full disk: only a later sweep would need it
            (self._folder / "process").write_text(f"{self.pid} {_started(self.pid)}")
        said = partial(log.debug, "model says %s")
        self._words = LastWords(self._child.stdout, "eim-output", lambda line: said(kv(line=line)))

    @property
    def pid(self) -> int:
        return self._child.pid

    def remember(self, blocks: list[SharedMemory]) -> None:
        """Note down the model's shared memory."""
        with contextlib.suppress(OSError):
            (self._folder / "shm").write_text("\n".join(block.name for block in blocks))

    def ended(self) -> bool:
        return self._child.exit_code() is not None

    def obituary(self) -> str:
        """How it ended and what it said last; to be asked when it has ended or is about to."""
        code = self._child.exit_code(STOP_TIMEOUT_S)
        if code is None:
            return "it still runs"
        self._words.wait(STOP_TIMEOUT_S)
        how = f"exit code {code}" if code >= 0 else f"killed by {signal_name(-code)}"
        return f"{how}: {' | '.join(self._words.lines)}" if self._words.lines else how

    def stop(self) -> None:
        """Let it follow its closed socket, else signal its whole group; reap it and remove its folder."""
        self._child.stop()
        descendants.end(self._folder)
        self._words.close()
        shutil.rmtree(self._folder, ignore_errors=True)


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
