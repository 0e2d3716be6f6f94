"""Trying a model in a process of its own, so that a malicious or damaged one takes nothing else down.

The process loads the bundle, runs the model once, and each variant that this machine may use, and says on stderr what
is wrong with it.
"""

import ctypes
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from edgeml import models
from edgeml.errors import EdgemlError
from edgeml.variants import runnable, this_processor
from model_updater.errors import Stopped, UpdateError

SOURCES = Path(__file__).resolve().parent.parent
SECRETS = ("SVCUID", "AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
POLL_S = 0.05
MAX_REASON, MAX_ERRORS = (
    500,
    1 << 16,
)  # of what is said on stderr the end is kept: a model's names can make it any length
CODE = """
import sys
from model_updater.probe import main
raise SystemExit(main(*sys.argv[1:]))
"""
_PR_SET_PDEATHSIG = 1


def probe(folder: Path, timeout_s: float, memory_bytes: int, stopping: threading.Event) -> None:
    """Raises UpdateError when the bundle does not load or run within these bounds, Stopped when told to stop."""
    environment = {key: value for key, value in os.environ.items() if key not in SECRETS}
    # As -I, but that modules are looked for where it runs first: in the folder of this component's code.
    options = ["-E", "-s", "-c", CODE]
    command = [sys.executable, *options, str(folder.absolute()), str(int(timeout_s)), str(memory_bytes)]
    deadline = time.monotonic() + timeout_s
    with subprocess.Popen(
        command,
        cwd=SOURCES,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as child:
        try:
            reason = _awaited(child, deadline, stopping)
        finally:
            child.kill()
    if child.returncode == 0:
        return
    if child.returncode < 0:
        raise UpdateError(f"trying the model ended by signal {-child.returncode} {reason}".rstrip())
    raise UpdateError(reason or f"trying the model ended with code {child.returncode}")


def _awaited(child: "subprocess.Popen[bytes]", deadline: float, stopping: threading.Event) -> str:
    """The last line the child wrote to stderr, once it has ended."""
    assert child.stderr is not None  # noqa: S101  (it was asked for; for the type checker)
    errors, open_pipe = b"", select.poll()
    open_pipe.register(child.stderr, select.POLLIN)
    is_open = True
    while is_open or child.poll() is None:
        if stopping.is_set():
            raise Stopped
        if time.monotonic() > deadline:
            raise UpdateError("the model could not be loaded and run in the time allowed")
        if not is_open:
            time.sleep(POLL_S)
        elif open_pipe.poll(POLL_S * 1000):
            piece = os.read(child.stderr.fileno(), MAX_ERRORS)
            errors, is_open = (errors + piece)[-MAX_ERRORS:], bool(piece)
    lines = errors.decode(errors="replace").strip().splitlines()
    return lines[-1][:MAX_REASON] if lines else ""


def main(folder: str, seconds: str, memory: str) -> int:
    # The parent may be killed, or have been: what is left of us then ends by itself.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    resource.setrlimit(resource.RLIMIT_CPU, (4 * int(seconds), 4 * int(seconds) + 1))
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        bundle = models.load(Path(folder))
        for file in (bundle.file, *(variant.file for variant in runnable(bundle.manifest.variants, this_processor()))):
            one = bundle.using(file)
            models.probe(models.open_session(one, threads=1), one)
    except EdgemlError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0
