"""Clips of one camera on the disk: those in the making, and those that are kept, within so many bytes and days."""

import errno
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import ClassVar

from camera_capture.clip_file import SUFFIX, mended
from edgeml.errors import RefusedError, SourceError
from edgeml.files import sync_folder

PART = SUFFIX + ".part"
MAX_NAME = 255  # of a file, in bytes
_DAY_S = 86400
_TIME = r"\d{8}T\d{6}\.\d{3}Z"
_TRIES = 100  # names of the same key


class ClipStore:
    """Names have the time, the camera and the key: `clips/thing/2026/11/a.mp4` is `<time>-<camera>~2026~11~a.mp4`.

    So cameras may have one folder: none touches what is another one's.
    """

    _making: ClassVar[set[Path]] = set()  # by this process

    def __init__(self, folder: Path, camera: str, keep_bytes: int, keep_days: float) -> None:
        self._folder, self._camera, self._keep_bytes, self._keep_days = folder, camera, keep_bytes, keep_days
        self._ours = re.compile(f"{_TIME}-{re.escape(camera)}~([A-Za-z0-9_~-]+){re.escape(SUFFIX)}")

    @property
    def keeps(self) -> bool:
        return self._keep_bytes > 0

    @contextmanager
    def begin(self, key: str, needed: int) -> Iterator[Path]:
        """A file for a new clip, which is gone at the end where it was not kept.

        Raises RefusedError for a key that makes no name, SourceError, OSError.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._check_folder()
        if shutil.disk_usage(self._folder).free < needed:
            raise SourceError(f"{self._folder}: the disk has no room for {needed} bytes")
        part = self._new(key)
        try:
            yield part
        finally:
            part.unlink(missing_ok=True)
            self._making.discard(part)

    def _new(self, key: str) -> Path:
        """A file that nobody else has, and no link. Raises RefusedError, OSError."""
        now_ms = time.time_ns() // 1_000_000
        for at_ms in range(now_ms, now_ms + _TRIES):  # of one key several may be asked for at once
            day = datetime.fromtimestamp(at_ms // 1000, timezone.utc)
            stamp = f"{day:%Y%m%dT%H%M%S}.{at_ms % 1000:03d}Z"
            part = self._folder / f"{stamp}-{self._camera}~{key.replace('/', '~')}.part"
            if (excess := len(part.name) - MAX_NAME) > 0:
                most = len(key) - excess
                raise RefusedError(f"key: expected at most {most} bytes below the prefix, found {len(key)}")
            if part in self._making or part.with_suffix("").exists():
                continue
            self._making.add(part)
            try:
                os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
            except BaseException as error:
                self._making.discard(part)
                if isinstance(error, FileExistsError):
                    continue
                raise
            return part
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(self._folder))

    def _check_folder(self) -> None:
        """Nobody else may put links there, through which we would write. Raises SourceError, OSError."""
        status = self._folder.stat()
        if status.st_uid not in (0, os.geteuid()) or status.st_mode & stat.S_IWOTH:
            raise SourceError(f"{self._folder}: other users could change clips there; expected a folder of our own")

    def keep(self, part: Path) -> Path:
        """It is whole. Raises OSError."""
        whole = part.with_suffix("")
        part.rename(whole)
        sync_folder(self._folder)
        self.prune(whole)
        return whole

    def left(self) -> list[tuple[Path, str]]:
        """What a process that was killed left, cut to what is whole, and its keys. Raises SourceError, OSError."""
        found = []
        if self._folder.exists():
            self._check_folder()
        for part in sorted(self._folder.glob(f"*{PART}")):
            named = self._ours.fullmatch(part.name.removesuffix(".part"))
            if named is None or part in self._making:
                continue
            if mended(part):
                found.append((part, named[1].replace("~", "/") + SUFFIX))
            else:
                part.unlink(missing_ok=True)
        return found

    def prune(self, newest: Path | None = None) -> None:
        """Remove the oldest of the clips, never another file and never `newest`. Raises OSError."""
        clips = sorted(path for path in self._folder.glob(f"*{SUFFIX}") if self._ours.fullmatch(path.name))
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
