"""What remains of root's rights once the configuration is known: to read, no more.

Root installs and starts the component (see privileged.py) and asks the core for its configuration. Lines are parsed and
sent as a user that no component has, who may read every file and write none but his own. Only where files are to be
deleted after their delivery root's rights remain. There is no way back: a process that needs them again ends, and the
core starts another.
"""

import contextlib
import ctypes
import logging
import os
import pwd
from collections.abc import Iterator
from pathlib import Path

from edgeml.log import kv
from log_shipper.config import Config, Options

log = logging.getLogger(__name__)

MARK = "EDGEML_LOG_SHIPPER_STATE"  # set by privileged.py: the folder of root's that may be given to the user
UID = 65_527  # of nobody else (systemd gives 61184 to 65519 away); root stays root where it is somebody's after all
_CAP_DAC_READ_SEARCH = 2
_SET_DUMPABLE, _SET_KEEPCAPS, _CAP_AMBIENT, _AMBIENT_RAISE = 4, 8, 47, 2
_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def deletes(config: Config) -> bool:
    """Whether anything is to be deleted that is not our own."""
    return any(item.limit_bytes or item.delete_log_file_after_cloud_upload for item in _options(config))


def _options(config: Config) -> Iterator[Options]:
    uploader = config.logs_uploader_configuration
    yield uploader.system_logs_configuration
    yield from uploader.component_logs_configuration
    yield from uploader.component_logs_configuration_map.values()
    yield from config.files.values()


def reduce(*, may_delete: bool) -> bool:
    """Give root's rights up as far as can be; whether files can be deleted as `may_delete` demands.

    Called by the main thread, before those that read and send are started. Threads of the IPC client keep no rights.
    """
    state = os.environ.get(MARK, "")
    if not state:
        return True
    if os.geteuid() != 0:
        return not may_delete
    reason = "files are to be deleted" if may_delete else _obstacle()
    _give(Path(state), 0 if reason else UID)
    if reason:
        log.info("stays root %s", kv(reason=reason))
        return True
    _become(UID)
    log.info("reads as a user of its own, and writes nothing but its records %s", kv(uid=UID))
    return True


def _obstacle() -> str:
    """Why root must stay root; empty if it need not."""
    permitted = _status("self", "CapPrm")
    if not int(permitted or "0", 16) >> _CAP_DAC_READ_SEARCH & 1:
        return "it has no capability DAC_READ_SEARCH to keep"
    if not _is_mapped("uid_map") or not _is_mapped("gid_map") or "deny" in _read("/proc/self/setgroups"):
        return f"user {UID} is unknown in this container"
    try:
        return f"user {UID} is {pwd.getpwuid(UID).pw_name}"
    except KeyError:
        pass
    used = any(str(UID) in _status(process.name, "Uid").split() for process in Path("/proc").glob("[0-9]*"))
    return f"another process runs as user {UID}" if used else ""


def _is_mapped(table: str) -> bool:
    """Whether the user, or the group, of that number exists in our namespace."""
    rows = [line.split() for line in _read(f"/proc/self/{table}").splitlines()]
    return any(int(first) <= UID < int(first) + int(count) for first, _, count in rows)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:  # a process has ended, or the kernel has no such file
        return ""


def _status(process: str, field: str) -> str:
    text = _read(f"/proc/{process}/status")
    return next((line.partition(":")[2].strip() for line in text.splitlines() if line.startswith(f"{field}:")), "")


def _give(folder: Path, uid: int) -> None:
    for top, folders, files in os.walk(folder):
        for name in (*folders, *files):
            os.chown(Path(top, name), uid, uid, follow_symlinks=False)
    os.chown(folder, uid, uid)


def _become(uid: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *arguments: object) -> None:
        if getattr(libc, name)(*arguments) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"{name}: {os.strerror(number)}")

    call("prctl", _SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    sets = (_Sets * 2)()
    kept = 1 << _CAP_DAC_READ_SEARCH
    sets[0] = _Sets(kept, kept, kept)
    call("capset", ctypes.byref(_Header(_VERSION_3, 0)), ctypes.byref(sets))
    call("prctl", _SET_DUMPABLE, 0, 0, 0, 0)
    with contextlib.suppress(OSError):  # forbidden by some containers: a problem tells that the journal is closed then
        call("prctl", _CAP_AMBIENT, _AMBIENT_RAISE, _CAP_DAC_READ_SEARCH, 0, 0)  # journalctl is to read, too
