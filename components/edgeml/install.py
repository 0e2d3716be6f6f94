"""A component's `install` step: a virtual environment in the work folder, from the hashed lock in the artifact.

Run by the device's own python3 as a script, `install.py [RUNTIME]`, so it uses the standard library alone. The core
runs install at every start: when nothing has changed this does nothing and needs no network, nor does an artifact that
carries `wheels/`. The lock of a RUNTIME is `requirements-RUNTIME.lock`.

An environment is made beside the one in use, as `venv-KEY`, and `venv` is a link to it that is switched by rename: an
install that fails or is killed leaves what ran, and the environment before stays, so that a rollback is a rename, too.
"""

import contextlib
import ctypes
import errno
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

MINIMUM = (3, 10)
TIMEOUT_S = 840  # just below the recipes' install timeout, so that the reason is ours and not "killed"
# The services whose descriptions botocore keeps: what components call, and what its credential providers call.
SERVICES = ("s3", "sagemaker-runtime", "secretsmanager", "signin", "sso", "sso-oidc", "sts")
STAMP = "installed"
ASIDE = "venv-1.0"  # the folder `venv` of version 1.0, which knew no link
_NEXT, _LOCK = ".venv.next", ".venv.lock"
_OURS = re.compile(r"venv-(?:[0-9a-f]{16}|1\.0)")
_FULL = {errno.ENOSPC, errno.EDQUOT}
_RENAME_EXCHANGE, _AT_FDCWD, _PR_SET_PDEATHSIG = 2, -100, 1


class InstallError(Exception):
    """Why there is no environment, in a sentence."""


def main() -> None:
    if sys.version_info < MINIMUM:
        raise SystemExit(f"python3 is {sys.version.split()[0]}, {'.'.join(map(str, MINIMUM))} or newer is needed")
    artifact, work = Path(__file__).resolve().parent.parent, Path.cwd()
    lock = artifact / f"{'-'.join(['requirements', *sys.argv[1:2]])}.lock"
    try:
        install(lock, work)
    except InstallError as error:
        raise SystemExit(f"ERROR install of {lock} failed: {error}") from error


def install(lock: Path, work: Path) -> None:
    """Make `work`/venv the environment that an artifact's lock describes; after an InstallError it is what it was.

    Callers at the same time wait for each other. Touches in `work` only what it made itself.
    """
    deadline = time.monotonic() + TIMEOUT_S
    try:
        venv = work / f"venv-{key(lock.read_bytes())}"
        if _current(work, venv.name):
            _tidy(work)
            return
        with _locked(work, deadline):
            if not complete(venv):
                _build(venv, lock, lock.parent / "wheels", deadline)
            kept = {venv.name, *_switch(work, venv.name)}
            _remove(path for path in _environments(work) if path.name not in kept)
    except OSError as error:
        raise InstallError(_reason(error, work)) from error


def key(lock: bytes) -> str:
    """16 hex digits that change with the lock, the interpreter, the machine, and what is kept of an environment.

    A new patch release of the same Python runs the same packages, so it changes nothing.
    """
    runtime = (sys.implementation.cache_tag, sys.base_prefix, sys.platform, os.uname().machine, SERVICES)
    return hashlib.sha256(lock + repr(runtime).encode()).hexdigest()[:16]


def complete(venv: Path) -> bool:
    """Whether this environment was made to its end and its interpreter is still there."""
    return (venv / STAMP).is_file() and os.access(venv / "bin" / "python", os.X_OK)


def _current(work: Path, name: str) -> bool:
    link = work / "venv"
    return link.is_symlink() and link.readlink().name == name and complete(link)


def _tidy(work: Path) -> None:
    """Remove what killed installs left, unless another install is at work on it; what cannot be removed stays."""
    if _unfinished(work) or os.path.lexists(work / _NEXT):
        with contextlib.suppress(OSError, InstallError), _locked(work, time.monotonic()):
            _settle(work)
            _remove(_unfinished(work))


def _build(venv: Path, lock: Path, wheels: Path, deadline: float) -> None:
    """Make an environment without pip. It is stamped last, when all of it is on disk; without a stamp it is rubbish."""
    sys.stdout.write(f"INFO install making {venv} from {lock}\n")
    sys.stdout.flush()
    _discard(venv)
    try:
        temporary = venv / "tmp"
        temporary.mkdir(parents=True)
        pip = unpacked_pip(temporary)
        _run([sys.executable, "-I", "-m", "venv", "--without-pip", str(venv)], temporary, deadline)
        offline = ["--no-index", "--find-links", str(wheels)] if wheels.is_dir() else []
        # Only wheels: nothing is compiled on the device and no package's setup code runs.
        options = ["-q", "--disable-pip-version-check", "--only-binary", ":all:", "--require-hashes", "--no-deps"]
        python = [str(venv / "bin" / "python"), "-I", "-B"]
        _run([*python, str(pip), "install", *options, *offline, "-r", str(lock)], temporary, deadline)
        shutil.rmtree(temporary)
        site = venv / "lib" / "python{}.{}".format(*sys.version_info) / "site-packages"
        if "==" in lock.read_text() and not any(site.glob("*.dist-info")):
            raise InstallError("pip put the packages elsewhere: is PIP_TARGET or another option of it set?")
        trim(site)
        _sync(venv, whole_disk=True)  # otherwise a power cut could leave a stamp beside empty files
        (venv / STAMP).write_text(lock.read_text())
    except BaseException:
        shutil.rmtree(venv, ignore_errors=True)
        raise


def unpacked_pip(target: Path) -> Path:
    """The pip that every Python carries for `venv`: unpacked for this one use, it needs no place in the environment."""
    folders = [sysconfig.get_config_var("WHEEL_PKG_DIR")]  # where Debian and Fedora keep it
    if spec := importlib.util.find_spec("ensurepip"):
        folders += [f"{place}/_bundled" for place in spec.submodule_search_locations or ()]
    found = [path for folder in folders if folder for path in sorted(Path(folder).glob("pip-*.whl"))]
    if not found or importlib.util.find_spec("venv") is None:
        raise InstallError(
            f"{sys.executable} has no venv with pip: apt install python3-venv, or what your system calls it"
        )
    with zipfile.ZipFile(found[-1]) as wheel:
        wheel.extractall(target)
    return target / "pip"


def trim(site: Path) -> None:
    """Remove what no component uses: tests, OpenCV's sample models, and descriptions of AWS services never called."""
    superfluous = [path for path in site.glob("*/**/tests") if path.is_dir()]
    superfluous += [path for path in site.glob("botocore/data/*") if path.is_dir() and path.name not in SERVICES]
    for path in superfluous:
        shutil.rmtree(path, ignore_errors=True)
    for path in site.glob("cv2/data/*.xml"):
        path.unlink()


def _run(command: list[str], temporary: Path, deadline: float) -> None:
    """Run one step. The end of this process ends it, too, so that it never writes where the next install is at work."""
    # A small /tmp is none of our business, and messages are read below.
    environment = {**os.environ, "TMPDIR": str(temporary), "LC_ALL": "C.UTF-8"}
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=_ends_with_parent(),  # noqa: PLW1509  # this process has one thread
    ) as child:
        try:
            output = child.communicate(timeout=max(0, deadline - time.monotonic()))[0].decode(errors="replace")
        except BaseException as error:
            child.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise InstallError(f"not done in {TIMEOUT_S} s, which a slow network may need more than") from error
            raise
    if child.returncode:
        sys.stderr.write(output)
        for code in _FULL:
            if f"[Errno {code}]" in output:
                raise OSError(code, os.strerror(code), str(temporary))
        last = output.strip().rsplit("\n", 1)[-1] or "it said nothing"
        if "connection broken" in output:
            last = f"the package index cannot be reached ({last})"
        raise InstallError(f"{' '.join(command[:4])} ... ended with code {child.returncode}: {last}")


def _ends_with_parent() -> Callable[[], None]:
    libc, parent = ctypes.CDLL(None), os.getpid()

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def _switch(work: Path, name: str) -> list[str]:
    """Point `venv` at another environment in one step. The name of the one before, if it is known and another."""
    link, new = work / "venv", work / _NEXT
    _settle(work)
    if link.is_symlink() and str(link.readlink()) == name:
        return [path.name for path in _environments(work)]  # what was before is not known: nothing is given up
    before = link.readlink().name if link.is_symlink() else ASIDE
    new.symlink_to(name)
    if link.is_dir() and not link.is_symlink():
        _exchange(new, link)
        _settle(work)
    else:
        new.replace(link)
    _sync(work)
    return [before]


def _exchange(new: Path, folder: Path) -> None:
    """Let a link and a folder change names, at once where the system can."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "renameat2"):
        names = os.fsencode(new), os.fsencode(folder)
        if libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
            return
    shutil.rmtree(folder.with_name(ASIDE), ignore_errors=True)
    folder.rename(folder.with_name(ASIDE))
    new.replace(folder)


def _settle(work: Path) -> None:
    """Clear what an interrupted switch left: a link, or version 1.0's folder on its way aside."""
    new = work / _NEXT
    if new.is_dir() and not new.is_symlink():
        shutil.rmtree(work / ASIDE, ignore_errors=True)
        new.rename(work / ASIDE)
    else:
        new.unlink(missing_ok=True)


def _environments(work: Path) -> list[Path]:
    return [path for path in work.iterdir() if _OURS.fullmatch(path.name) and path.is_dir() and not path.is_symlink()]


def _unfinished(work: Path) -> list[Path]:
    return [path for path in _environments(work) if path.name != ASIDE and not (path / STAMP).is_file()]


def _discard(path: Path) -> None:
    """Remove whatever has this name; of a link, the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _remove(folders: Iterable[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _sync(folder: Path, *, whole_disk: bool = False) -> None:
    """Make the names in a folder durable, or all that was written to its file system."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if whole_disk:
            ctypes.CDLL(None).syncfs(descriptor)
        else:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _locked(work: Path, deadline: float) -> Iterator[None]:
    """One install at a time; the end of a process frees it. Raises InstallError when another takes too long."""
    lock = work / _LOCK
    if os.path.lexists(lock) and (lock.is_symlink() or not lock.is_file()):  # a pipe would be waited for
        _discard(lock)
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with os.fdopen(os.open(lock, flags, 0o600), "wb") as file:
        with contextlib.suppress(PermissionError):
            os.fchmod(file.fileno(), 0o600)  # whoever can open it can hold it for ever
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise InstallError(f"another install in {work} is not done in {TIMEOUT_S} s") from error
                time.sleep(0.05)
        yield


def _reason(error: OSError, work: Path) -> str:
    if error.errno in _FULL:
        free = shutil.disk_usage(work).free
        return f"the disk is full: {work} has {free / 1e6:.0f} MB left, free some and deploy again ({error})"
    return str(error)


if __name__ == "__main__":
    main()
