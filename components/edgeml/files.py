"""Files that are whole or absent, never half written."""

import errno
import os
import pwd
import stat
import tempfile
from pathlib import Path


def write_atomic(path: Path, data: bytes | str, mode: int = 0o644) -> None:
    """Replace `path` by `data` (text as UTF-8), durably: after a crash the old or the new content is there, whole.

    `mode` holds whatever the umask. A symlink at `path` is replaced, not followed. Raises OSError; the old
    file is then untouched and nothing is left behind.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable: a rename or a new file survives a power cut only after this."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_regular(path: Path, max_bytes: int, *, follow: bool = True) -> bytes:
    """All of a regular file, whose name may be of strangers' making: a pipe, a device or a socket is not waited for.

    Raises OSError; one that is no file or has more than `max_bytes` says so.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    with os.fdopen(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        data, piece = b"", b"-"
        while piece and len(data) <= max_bytes:  # its size may change meanwhile, and is 0 below /proc
            piece = file.read(min(max(status.st_size - len(data), 1 << 16), max_bytes - len(data)) + 1)
            data = data + piece if data else piece
    if len(data) > max_bytes:
        raise OSError(errno.EFBIG, f"more than {max_bytes} bytes", str(path))
    return data


def unreadable(path: Path, *, _links: int = 40) -> str:
    """Why the user of this process may not read `path`: which folder or file on the way, and whose it is.

    Empty where it may, and where nothing is there.
    """
    path = path.absolute()
    for step in [*reversed(path.parents), path]:
        try:
            if step.is_symlink():
                target = step.parent / step.readlink() / path.relative_to(step)
                return unreadable(target, _links=_links - 1) if _links else ""
            step.lstat()
        except PermissionError:
            return _refusal(step.parent)
        except OSError:
            return ""
    return "" if os.access(path, os.R_OK) else _refusal(path)


def _refusal(path: Path) -> str:
    state = path.stat()
    who, owner = _user(os.geteuid()), _user(state.st_uid)
    return f"{path} cannot be read by user {who}: it is {owner}'s, mode {stat.S_IMODE(state.st_mode):04o}"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
