"""Trying a model in a process of its own, so that a malicious or damaged one takes nothing else down.

`python -m model_updater.probe FOLDER SECONDS BYTES` loads the bundle, runs the model once, and says on stderr what is
wrong with it.
"""

import os
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path

from edgeml import models
from edgeml.errors import EdgemlError
from model_updater.errors import Stopped, UpdateError

SOURCES = Path(__file__).resolve().parent.parent
SECRETS = ("SVCUID", "AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
POLL_S = 0.05
MAX_REASON = 500


def probe(folder: Path, timeout_s: float, memory_bytes: int, stopping: threading.Event) -> None:
    """Raises UpdateError when the bundle does not load or run within these bounds, Stopped when told to stop."""
    environment = {key: value for key, value in os.environ.items() if key not in SECRETS}
    environment["PYTHONPATH"] = str(SOURCES)
    command = [sys.executable, "-P", "-m", "model_updater.probe", str(folder), str(int(timeout_s)), str(memory_bytes)]
    deadline = time.monotonic() + timeout_s
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
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
    while True:
        try:
            _, errors = child.communicate(timeout=POLL_S)
        except subprocess.TimeoutExpired:
            if stopping.is_set():
                raise Stopped from None
            if time.monotonic() > deadline:
                raise UpdateError("the model could not be loaded and run in the time allowed") from None
        else:
            lines = errors.decode(errors="replace").strip().splitlines()
            return lines[-1][:MAX_REASON] if lines else ""


def main(folder: str, seconds: str, memory: str) -> int:
    # The parent may have been killed: what is left of us then ends by itself.
    resource.setrlimit(resource.RLIMIT_CPU, (4 * int(seconds), 4 * int(seconds) + 1))
    resource.setrlimit(resource.RLIMIT_AS, (int(memory), int(memory)))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        bundle = models.load(Path(folder))
        models.probe(models.open_session(bundle, threads=1), bundle)
    except EdgemlError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
