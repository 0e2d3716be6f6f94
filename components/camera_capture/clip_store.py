"""Clips of one camera on the disk: those in the making, and those that are kept, within so many bytes and days."""

import os
import re
import shutil
import time
from datetime import datetime, timezone
from pathlib import Path

from camera_capture.clip_file import SUFFIX, mended
from edgeml.errors import RefusedError, SourceError
from edgeml.files import sync_folder

PART = SUFFIX + ".part"
MAX_NAME = 255  # of a file, in bytes
_DAY_S = 86400
_NAME = re.compile(r"(\d{8}T\d{6}\.\d{3}Z)-([A-Za-z0-9_~-]+)" + re.escape(SUFFIX))


class ClipStore:
    """Names begin with the time, and the key follows: `clips/thing/2026/11/a.mp4` is `<time>-2026~11~a.mp4`."""

    def __init__(self, folder: Path, keep_bytes: int, keep_days: float) -> None:
        self._folder, self._keep_bytes, self._keep_days = folder, keep_bytes, keep_days

    @property
    def keeps(self) -> bool:
        return self._keep_bytes > 0

    def begin(self, key: str, needed: int) -> Path:
        """A file for a new clip. Raises RefusedError for a key that makes no name, SourceError, OSError."""
        now = time.time()
        day = datetime.fromtimestamp(now, timezone.utc)
        name = f"{day:%Y%m%dT%H%M%S}.{int(now * 1000) % 1000:03d}Z-{key.replace('/', '~')}"
        if len(name) + len(".part") > MAX_NAME:
            raise RefusedError(f"key: expected at most {MAX_NAME - 30} bytes below the prefix, found {len(key)}")
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if shutil.disk_usage(self._folder).free < needed:
            raise SourceError(f"{self._folder}: the disk has no room for {needed} bytes")
        part = self._folder / f"{name}.part"
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))  # nobody else's, no link
        return part

    def keep(self, part: Path) -> Path:
        """It is whole. Raises OSError."""
        whole = part.with_suffix("")
        part.rename(whole)
        sync_folder(self._folder)
        self.prune(whole)
        return whole

    def left(self) -> list[tuple[Path, str]]:
        """What a process that was killed left, cut to what is whole, and its keys. Raises OSError."""
        found = []
        for part in sorted(self._folder.glob(f"*{PART}")):
            named = _NAME.fullmatch(part.name.removesuffix(".part"))
            if named is None:
                continue
            if mended(part):
                found.append((part, named[2].replace("~", "/") + SUFFIX))
            else:
                part.unlink(missing_ok=True)
        return found

    def prune(self, newest: Path | None = None) -> None:
        """Remove the oldest of the clips, never another file and never `newest`. Raises OSError."""
        clips = sorted(path for path in self._folder.glob(f"*{SUFFIX}") if _NAME.fullmatch(path.name))
        sizes = {path: path.stat().st_size for path in clips}
        taken = sum(sizes.values())
        oldest = (
            f"{datetime.fromtimestamp(max(0.0, time.time() - self._keep_days * _DAY_S), timezone.utc):%Y%m%dT%H%M%S}"
        )
        for path in clips:
            if path == newest or (taken <= self._keep_bytes and path.name >= oldest):
                continue
            path.unlink(missing_ok=True)
            taken -= sizes[path]
