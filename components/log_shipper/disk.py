"""diskSpaceLimit and deleteLogFileAfterCloudUpload: only rotated files that have been delivered whole are deleted."""

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from edgeml.log import kv
from log_shipper.config import Options
from log_shipper.identity import Seen
from log_shipper.scan import is_rotated

log = logging.getLogger(__name__)

_QUIET_S = 60.0  # files of other programs count as rotated when a newer one exists and nobody has written for so long


def tidy(files: Iterable[Seen], options: Options, is_delivered: Callable[[Seen], bool]) -> int:
    """Delete what may be deleted of one log's files, oldest first; how many were."""
    if not options.limit_bytes and not options.delete_log_file_after_cloud_upload:
        return 0
    ordered = sorted(files, key=lambda seen: (seen.mtime, seen.path))
    excess = sum(seen.size for seen in ordered) - options.limit_bytes if options.limit_bytes else 0
    deleted = 0
    for seen in ordered:
        if not options.delete_log_file_after_cloud_upload and excess <= 0:
            break
        if (is_rotated(seen.path) or _is_left(seen, ordered[-1])) and is_delivered(seen) and _delete(seen):
            excess -= seen.size
            deleted += 1
    return deleted


def _is_left(seen: Seen, newest: Seen) -> bool:
    return seen is not newest and time.time() - seen.mtime / 1e9 > _QUIET_S


def _delete(seen: Seen) -> bool:
    path = Path(seen.path)
    try:
        status = path.stat()
        if ((status.st_dev, status.st_ino), status.st_size) != (seen.key, seen.size):
            return False  # renamed or written to since the scan
        path.unlink()
    except OSError as error:
        log.warning("cannot delete a delivered log file %s", kv(file=path, reason=error.strerror))
        return False
    log.info("deleted a delivered log file %s", kv(file=path, bytes=seen.size))
    return True
