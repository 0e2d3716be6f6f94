"""Python processes that start at once: forks of one that has imported what components import.

Half of what a component's process costs in a test is to import libraries of others. A fork is a process like any other,
with an id, arguments, an environment, a folder, standard files, signals and an end of its own; and nothing of ours is
imported beforehand, so that our code runs from its first line on.
"""

import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LIBRARIES = (
    "PIL.Image",
    "argparse",
    "asyncio",
    "boto3",
    "botocore.auth",
    "botocore.httpsession",
    "botocore.session",
    "cryptography.hazmat.primitives.asymmetric.ed25519",
    "cryptography.hazmat.primitives.serialization",
    "cryptography.x509",
    "h11",
    "http.server",
    "logging.handlers",
    "msgspec",
    "numpy",
    "paho.mqtt.client",
    "prometheus_client",
    "serial",
    "sqlite3",
    "ssl",
    "starlette.applications",
    "tarfile",
    "urllib.request",
    "uvicorn",
    "websockets.sync.client",
    "zipfile",
)
ISOLATED = ("-I", "-S", "-B")  # a Lambda function's of the local cloud: without the tree, and without awscrt
PACKAGES = sysconfig.get_path("purelib")
# What the local cloud's functions ask.
SERVICES = ("cloudwatch", "dynamodb", "firehose", "greengrassv2", "iot", "logs", "rekognition", "s3", "sqs")
NOBODY = {"AWS_ACCESS_KEY_ID": "-", "AWS_SECRET_ACCESS_KEY": "-", "AWS_EC2_METADATA_DISABLED": "true"}
LARGEST = 1 << 17  # bytes of a request


def popen(command: Sequence[str | Path], **options: Any) -> "subprocess.Popen[Any]":
    """As subprocess.Popen(command, **options) of a `python [-P | -I -S -B] (-m MODULE | -c CODE | FILE) ...`.

    A plain process outside the suite: benchmarks measure what a start takes.
    """
    return Fork(command, **options) if _may_start else subprocess.Popen(command, **options)


class Fork(subprocess.Popen[Any]):
    """The two things that differ are how it begins, and whom its end is heard from."""

    def _execute_child(self, command: Sequence[str], *given: Any) -> None:
        cwd, environment, files = given[4], given[5], given[9:15]
        ours, theirs = [files[1], files[2], files[4]], [files[0], files[3], files[5]]
        isolated = tuple(command[1:4]) == ISOLATED
        server = _isolated if isolated else _others.get(str(command[0]), _plain)
        request = {
            "command": list(map(str, command[4 if isolated else 1 :])),
            "session": given[20],
            "cwd": os.fspath(cwd or Path.cwd()),
            "environment": dict(os.environ if environment is None else environment),
        }
        status, told = os.pipe()
        try:
            inherited = [file if file >= 0 else number for number, file in enumerate(theirs)]
            server.ask(json.dumps(request).encode(), [*inherited, told])
        finally:
            piped = [file for mine, file in zip(ours, theirs, strict=True) if mine >= 0 and file >= 0]
            for file in (told, *piped, *filter(None, [vars(self).get("_devnull")])):
                os.close(file)
        self._status = os.fdopen(status, "rb", buffering=0)
        self.pid = int(self._status.read(10))
        self._child_created = True

    def _try_wait(self, flags: int) -> tuple[int, int]:
        """As os.waitpid, which knows children alone."""
        if flags & os.WNOHANG and not select.select([self._status], [], [], 0)[0]:
            return 0, 0
        with self._status:
            return self.pid, int(self._status.read(10))

    def _internal_poll(self, *_: Any, **__: Any) -> int | None:
        if self.returncode is None and self._waitpid_lock.acquire(blocking=False):  # type: ignore[attr-defined]
            try:
                pid, status = self._try_wait(os.WNOHANG) if self.returncode is None else (0, 0)
                if pid:
                    self._handle_exitstatus(status)  # type: ignore[attr-defined]
            finally:
                self._waitpid_lock.release()  # type: ignore[attr-defined]
        return self.returncode


class _Server:
    """A process that forks, of this Python with these options, once it has imported these libraries."""

    def __init__(
        self, libraries: Sequence[str], python: str, *options: str, environment: dict[str, str] | None = None
    ) -> None:
        """`environment` is what it imports in; a fork has its own."""
        self._command = [python, *options, __file__]
        self._environment = environment
        self._libraries = libraries
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        with self._lock:
            if self._process is None:
                self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with theirs:
                    command = [*self._command, str(theirs.fileno()), PACKAGES, *self._libraries]
                    self._process = subprocess.Popen(
                        command,
                        pass_fds=[theirs.fileno()],
                        env=self._environment,
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                    )

    def ask(self, request: bytes, files: list[int]) -> None:
        assert len(request) < LARGEST
        self.begin()
        with self._lock:
            socket.send_fds(self._control, [request], files)

    def end(self) -> None:
        with self._lock:
            if self._process is not None:
                self._control.close()
                self._process.communicate(timeout=10)
                self._process = None


_plain = _Server(LIBRARIES, sys.executable, "-P")
_isolated = _Server(("boto3",), sys.executable, *ISOLATED, environment=NOBODY)
_others: dict[str, _Server] = {}
_may_start = False


def begin() -> None:
    """Start what forks, which otherwise comes with the first fork: for a test that counts this process' children."""
    _plain.begin()


def import_first(python: Path, *libraries: str) -> None:
    """From here on processes of this other Python are forks, too, of one that has imported these."""
    _others.setdefault(str(python), _Server(libraries, str(python), "-P"))


@contextlib.contextmanager
def forking() -> Any:
    """Until the end of the block `popen` forks."""
    global _may_start
    _may_start = True
    try:
        yield
    finally:
        _may_start = False
        for server in (_plain, _isolated, *_others.values()):
            server.end()


@functools.cache
def share_what_botocore_reads() -> None:
    """From here on its sessions do so: hundreds of them would each read megabytes and rename the same events anew."""
    session: Any = importlib.import_module("botocore.session")
    made = functools.cache(session.create_loader)

    def create_loader(data_path: str | None = None) -> Any:
        loader = made(data_path)
        loader.search_paths[:] = dict.fromkeys(loader.search_paths)  # each session of boto3 adds its own
        return loader

    session.create_loader = create_loader

    names: dict[str, str] = {}
    aliaser: Any = importlib.import_module("botocore.hooks").EventAliaser
    begin = aliaser.__init__

    def begun(self: Any, *arguments: Any) -> None:
        begin(self, *arguments)
        self._alias_name_cache = names

    aliaser.__init__ = begun


def serve(control: socket.socket) -> dict[str, Any]:
    """Fork for each request. Only a fork returns, with what it is to run."""
    waiting = select.poll()
    waiting.register(control, select.POLLIN)
    forks: dict[int, tuple[int, int]] = {}  # by the file that tells of the end: process id, where to tell it
    while True:
        for file, _ in waiting.poll():
            if file in forks:
                waiting.unregister(file)
                _tell_end(*forks.pop(file))
                os.close(file)
                continue
            message, files, _, _ = socket.recv_fds(control, LARGEST, 4)
            if not message:
                raise SystemExit
            pid = os.fork()
            if pid == 0:
                for number, given in enumerate(files[:3]):
                    os.dup2(given, number)
                for others in (control.detach(), *files, *forks, *(told for _, told in forks.values())):
                    os.close(others)
                found: dict[str, Any] = json.loads(message)
                return found
            for given in files[:3]:
                os.close(given)
            os.write(files[3], b"%10d" % pid)
            end = os.pidfd_open(pid)
            forks[end] = pid, files[3]
            waiting.register(end, select.POLLIN)


def _tell_end(pid: int, told: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody waits for it
        os.write(told, b"%10d" % os.waitpid(pid, 0)[1])
    os.close(told)


def run(command: list[str], cwd: str, environment: dict[str, str], *, session: bool) -> None:
    """What Python does with these arguments."""
    if session:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    safe = command[0] == "-P"
    kind, *arguments = command[safe:]
    if not safe and not sys.flags.isolated:
        sys.path.insert(0, {"-c": "", "-m": cwd}.get(kind, str(Path(kind).parent)))
    if kind == "-m":
        sys.argv = arguments
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.argv = [kind, *arguments[1:]]
        exec(compile(arguments[0], "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102
    else:
        sys.argv = [kind, *arguments]
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.flags.isolated:
        sys.modules["awscrt"] = None  # type: ignore[assignment]
        sys.path.append(sys.argv[2])
    for name in sys.argv[3:]:
        importlib.import_module(name)
    if sys.flags.isolated:
        share_what_botocore_reads()
        for name in SERVICES:
            sys.modules["boto3"].client(name, region_name="us-east-1")
        sys.modules["boto3"].DEFAULT_SESSION = None  # type: ignore[attr-defined]
        sys.path.pop()
    gc.freeze()
    run(**serve(socket.socket(fileno=int(sys.argv[1]))))
