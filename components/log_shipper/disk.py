"""diskSpaceLimit and deleteLogFileAfterCloudUpload: only rotated files that have been delivered whole are deleted."""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Collection

from edgeml.log import kv
from log_shipper import folders
from log_shipper.config import Options
from log_shipper.identity import Key, Seen
from log_shipper.scan import is_rotated

log = logging.getLogger(__name__)

_QUIET_S = 60.0  # files of other programs count as rotated when a newer one exists and nobody has written for so long


def tidy(files: Collection[Seen], options: Options, is_delivered: Callable[[Seen], bool]) -> list[Seen]:
    """Delete what may be deleted of one log's files, oldest first; those that were."""
    deleted: list[Seen] = []
    if not options.limit_bytes and not options.delete_log_file_after_cloud_upload:
        return deleted
    excess = sum(seen.size for seen in files) - options.limit_bytes if options.limit_bytes else 0
    if not options.delete_log_file_after_cloud_upload and excess <= 0:
        return deleted
    ordered = sorted(files, key=lambda seen: (seen.mtime, seen.path))
    in_use: set[Key] | None = None
    for seen in ordered:
        if not options.delete_log_file_after_cloud_upload and excess <= 0:
            break
        if not (is_rotated(seen.path) or _is_left(seen, ordered[-1])) or not is_delivered(seen):
            continue
        if in_use is None:
            in_use = _open_elsewhere()
        if seen.key not in in_use and _delete(seen):
            excess -= seen.size
            deleted.append(seen)
    return deleted


def _is_left(seen: Seen, newest: Seen) -> bool:
    return seen is not newest and time.time() - seen.mtime / 1e9 > _QUIET_S


def _open_elsewhere() -> set[Key]:
    """The files that other processes hold open, as far as we may see: all as root, else those of our own user."""
    found = set()
    ours = str(os.getpid())
    with os.scandir("/proc") as processes:
        others = [each.name for each in processes if each.name.isdecimal() and each.name != ours]
    for process in others:
        # Another user's process, one that has ended, or a descriptor that was just closed.
        with contextlib.suppress(OSError), os.scandir(f"/proc/{process}/fd") as descriptors:
            for descriptor in descriptors:
                with contextlib.suppress(OSError):
                    status = descriptor.stat()
                    found.add((status.st_dev, status.st_ino))
    return found


def _delete(seen: Seen) -> bool:
    """Delete a file that is still the one that was seen; whether it was.

    It is given another name first: what stands under its own by the time it goes is nobody's loss.
    """
    folder, _, name = seen.path.rpartition("/")
    aside = f".{seen.key[1]}.edgeml-deletes"  # names have a limit in bytes, which a longer one may pass
    try:
        with folders.opened(folder or "/") as parent:
            if not _is_as_seen(parent, name, seen):
                return False  # renamed or written to since the scan
            os.rename(name, aside, src_dir_fd=parent.descriptor, dst_dir_fd=parent.descriptor)
            if not _is_as_seen(parent, aside, seen):
                _give_back(parent.descriptor, aside, name)
                return False
            os.unlink(aside, dir_fd=parent.descriptor)
    except OSError as error:
        log.warning("cannot delete a delivered log file %s", kv(file=seen.path, reason=error.strerror))
        return False
    log.info("deleted a delivered log file %s", kv(file=seen.path, bytes=seen.size))
    return True


def _is_as_seen(parent: folders.Place, name: str, seen: Seen) -> bool:
    status = os.stat(name, dir_fd=parent.descriptor, follow_symlinks=False)
    found = ((status.st_dev, status.st_ino), status.st_size, status.st_mtime_ns)
    return found == (seen.key, seen.size, seen.mtime) and not parent.objection(status)


def _give_back(parent: int, aside: str, name: str) -> None:
    """Undo the renaming, unless there is a newer file of that name already."""
    os.link(aside, name, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
    os.unlink(aside, dir_fd=parent)
