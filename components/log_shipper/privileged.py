"""What root does before the component runs: only bytes that nobody else could have changed are ever executed.

On the Java nucleus the logs are root's, but everything a deployment brings belongs to the components' user: artifacts,
unpacked or not, and the work folder with its environment. Only the text of the recipe is the core's own. So that text
compares the archive with the digest that the build wrote into it, and imports this module from a copy in a folder of
root's. Here the copy is unpacked, its environment made, and the component started, all in that folder.

Run by the device's own python3: standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import IO, NoReturn

INSTALL_TIMEOUT_S = 880  # below the recipe's
KEPT = 2  # versions: the one that runs, and the one before it, for a rollback without network
MAX_STATE_BYTES = 1 << 30
_STATE = ("checkpoint.db", "checkpoint.db-wal", "iot_core.db", "iot_core.db-wal")
# What pip is given of the core's environment. Its settings come from /etc alone, which is root's.
_FOR_PIP = ("PATH", "LANG", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
_PR_SET_NO_NEW_PRIVS = 38


def main(step: str, code: str, home: str, root: str) -> None:
    """`install` or `run` from `code`, an archive below root's folder `home`, or with no `home` the artifact as it is.

    The recipe's script calls it in the component's work folder. `run` does not return.
    """
    os.umask(0o022)  # code and environment are no secret, and the component gives up root's rights
    if not home:
        _in_place(step, Path(code), root)
    work = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    folder = Path(home)
    folder.chmod(0o755)
    os.chdir(folder)
    with _open_lock(folder / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        unpacked = _unpack(Path(code), folder)
        _install(unpacked, folder)
        _remove_old(folder, unpacked)
        if step == "install":
            return
        state = _state(folder, work)
    os.close(work)
    os.chdir(state)
    os.environ["EDGEML_LOG_SHIPPER_STATE"] = str(state)  # see privileges.py
    _find_core(folder, root)
    _no_new_privileges()
    _start(folder / "venv", unpacked, root)


def _open_lock(path: Path) -> IO[bytes]:
    """Whoever can open the file can hold its lock for ever, so nobody else can."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "wb")


def _in_place(step: str, code: Path, root: str) -> NoReturn:
    """Artifact and work folder are root's, or we are not: there is nobody to be protected from."""
    if step == "install":
        os.execv(sys.executable, [sys.executable, "-I", str(code / "edgeml" / "install.py")])  # noqa: S606
    venv = Path.cwd() / "venv"
    if os.geteuid() == 0 and (foreign := _foreign(Path.cwd()) or _foreign(venv.resolve())):
        raise SystemExit(f"{foreign} is not root's alone: another user ran this component before; remove it")
    _start(venv, code, root)


def _start(venv: Path, code: Path, root: str) -> NoReturn:
    python = venv / "bin" / "python"
    sys.stdout.flush()
    os.execv(python, [str(python), "-I", "-u", str(code), "--root", root])  # noqa: S606


def _foreign(folder: Path) -> str:
    """The first of a folder's files that somebody but root owns or may write; links count for their owner."""
    for top, folders, files in os.walk(folder):
        for name in (".", *folders, *files):
            path = os.path.join(top, name)  # noqa: PTH118  (thousands of them)
            status = os.lstat(path)
            if status.st_uid or (status.st_mode & 0o022 and not stat.S_ISLNK(status.st_mode)):
                return path
    return ""


def _unpack(archive: Path, folder: Path) -> Path:
    """The folder of an archive's content, made once."""
    target = folder / f"code-{archive.stem}"
    if not target.is_dir():
        fresh = folder / "code.new"
        shutil.rmtree(fresh, ignore_errors=True)
        with zipfile.ZipFile(archive) as content:
            content.extractall(fresh)
        _rename_durably(fresh, target)
    os.utime(target)
    return target


def _install(code: Path, folder: Path) -> None:
    """The environment beside the code, by the same script as everywhere; nothing if it is there already."""
    temporary = folder / "tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    environment = {name: value for name, value in os.environ.items() if name.upper() in _FOR_PIP}
    environment.update(HOME=str(folder), TMPDIR=str(temporary))
    command = [sys.executable, "-I", str(code / "edgeml" / "install.py")]
    try:
        done = subprocess.run(command, cwd=folder, env=environment, timeout=INSTALL_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise SystemExit(f"install takes longer than {INSTALL_TIMEOUT_S} s") from error
    if done.returncode:
        raise SystemExit(done.returncode)


def _remove_old(folder: Path, current: Path) -> None:
    """Versions older than the one before the current."""
    versions = sorted(folder.glob("code-*"), key=lambda path: path.stat().st_mtime_ns)
    keep = {current.name, *(path.name for path in versions[-KEPT:])}
    for path in versions:
        if path.name not in keep:
            shutil.rmtree(path, ignore_errors=True)
    for archive in folder.glob("*.zip*"):
        if f"code-{archive.name.partition('.')[0]}" not in keep:
            archive.unlink()


def _state(folder: Path, work: int) -> Path:
    """Where the component keeps what it has delivered. Version 1.0 kept it in the work folder: taken over once."""
    state = folder / "state"
    if not state.is_dir():
        fresh = folder / "state.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        for name in _STATE:
            with contextlib.suppress(OSError):
                _take_over(name, work, fresh / name)
        _rename_durably(fresh, state)
    _take_back(state)
    return state


def _take_back(state: Path) -> None:
    """Root reads and writes here again until it gives up its rights, and so trusts nothing but plain files.

    They were the user's of privileges.py, who reads what strangers write: should one of them have taken him over, links
    of his would lead root, or the next change of owner, to files elsewhere.
    """
    os.chown(state, 0, 0)
    state.chmod(0o700)  # first, so that he can change nothing any more
    for path in list(state.iterdir()):
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            _take_back(path)
        elif stat.S_ISREG(status.st_mode) and status.st_nlink == 1:
            os.chown(path, 0, 0, follow_symlinks=False)
        else:
            path.unlink()


def _find_core(folder: Path, root: str) -> None:
    """A socket path too long for the kernel is given relative to the work folder, which we have left."""
    name, above = "AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT", "../../"
    if os.environ.get(name, "").startswith(above):
        link = folder / "core"
        link.unlink(missing_ok=True)
        link.symlink_to(root)
        os.environ[name] = f"../core/{os.environ[name].removeprefix(above)}"


def _rename_durably(fresh: Path, target: Path) -> None:
    """After a power cut the folder is there whole, or not at all. Done once for a version, so all is written out."""
    os.sync()
    fresh.rename(target)


def _take_over(name: str, work: int, target: Path) -> None:
    """Copy a file that root wrote; what anybody else could have put there stays where it is."""
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=work)
    with os.fdopen(descriptor, "rb") as source:
        status = os.fstat(descriptor)
        alone = stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and not status.st_mode & 0o022
        if status.st_uid or not alone or status.st_size > MAX_STATE_BYTES:
            sys.stdout.write(f"WARN privileged not taken over, it is not root's alone: {name}\n")
            return
        with target.open("xb") as copy:
            shutil.copyfileobj(source, copy)


def _no_new_privileges() -> None:
    """Neither this process nor what it starts ever gains rights by a set-user-id program."""
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
