"""Files that are for the component's user alone."""

import os
import stat
from pathlib import Path

from monitor.errors import AccessError


def is_private(file: Path) -> bool:
    """Whether `file` is there, for this user alone; False if there is nothing. Raises AccessError for anything else."""
    try:
        status = file.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise AccessError(f"{file}: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise AccessError(f"{file}: expected a file of this component's user that nobody else may read (0600)")
    return True
