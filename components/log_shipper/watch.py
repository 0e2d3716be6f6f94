"""What lies in folders of logs, looked at again and again: what changes is seen at once, the rest costs little.

A folder's own time of change tells whether names came or went. Only then is it listed, and only names that are new are
looked up. Files that are written to change without their folder: up to MANY of them are looked up every time, beyond
that those that changed lately, and of the others some in turn.
"""

import errno
import fnmatch
import os
import re
import time
from collections.abc import Callable, Iterator
from glob import has_magic
from typing import Generic, TypeVar

from log_shipper import folders
from log_shipper.identity import Seen

L = TypeVar("L")

MANY = 2_000  # files of one folder that are looked up each time
LATELY_S = 600.0
LIST_EVERY_S = 60.0  # at least, for file systems whose folders do not tell
FRESH_NS = 2_000_000_000  # a folder that changed less than this ago may change again without its time telling
MAX_NAMED = 100  # refused files of a folder that are named
MAX_FOLDERS = 10_000  # of one pattern
MAX_WALK_S = 2.0
_WALK_SHARE = 0.02  # of the time at most
_OVER = {errno.ENOENT, errno.ENOTDIR}


class Folder(Generic[L]):
    """One folder: `files` are its logs' files by path, with what `owner` makes of their name, None being no log's."""

    def __init__(self, path: str, owner: Callable[[str], L | None]) -> None:
        self.path = path
        self.files: dict[str, tuple[L, Seen]] = {}
        self.refused: dict[str, str] = {}  # why, by path
        self.unreadable = ""
        self._owner = owner
        self._listed: tuple[int, int, int] | None = None
        self._list_at = 0.0
        self._others: frozenset[str] = frozenset()  # names that are nobody's
        self._lately: dict[str, float] = {}
        self._turn: Iterator[str] = iter(())

    def look(self) -> bool:
        """Look again; whether anything has changed. What cannot be looked at for now is taken to be as it was."""
        try:
            with folders.opened(self.path) as place:
                self.unreadable = ""
                return self._look(place)
        except folders.ForgedError as error:
            self.refused = {self.path: error.strerror or ""}
            return self._gone()
        except OSError as error:
            if error.errno in _OVER:
                self.refused, self.unreadable = {}, ""
                return self._gone()
            self.unreadable = error.strerror or str(error)
            return False

    def _gone(self) -> bool:
        changed = bool(self.files)
        self.files, self._listed, self._lately = {}, None, {}
        return changed

    def _look(self, place: folders.Place) -> bool:
        status = place.status

        def seen(name: str, path: str) -> Seen | None:
            return self._seen(place, name, path)

        changed = False
        now = time.monotonic()
        identity = (status.st_dev, status.st_ino, status.st_ctime_ns)
        if identity != self._listed or now > self._list_at:
            changed = self._list(place.descriptor, seen)
            settled = status.st_ctime_ns < time.time_ns() - FRESH_NS and not self.refused
            self._listed, self._list_at = identity if settled else None, now + LIST_EVERY_S
        for path in list(self._due()):
            if path in self.files and self._again(path, seen, now):
                changed = True
        return changed

    def _list(self, descriptor: int, seen: Callable[[str, str], Seen | None]) -> bool:
        """Compare the names in the folder with those known; whether they are others."""
        changed, prefix = False, self._prefix
        kept: set[str] = set()
        others: set[str] = set()
        self.refused = {}
        with os.scandir(descriptor) as entries:
            for entry in entries:
                name, path = entry.name, prefix + entry.name
                known = self.files.get(path)
                if known is not None and known[1].key[1] == entry.inode():
                    kept.add(path)
                    continue
                log = known[0] if known else None if name in self._others else self._owner(name)
                if log is None:
                    if len(others) < MANY:
                        others.add(name)
                elif found := seen(name, path):
                    kept.add(path)
                    if known is None or known[1] != found:
                        self._put(path, log, found)
                        changed = True
        self._others = frozenset(others)
        if len(kept) < len(self.files):
            self.files = {path: item for path, item in self.files.items() if path in kept}
            self._lately = {path: at for path, at in self._lately.items() if path in kept}
            changed = True
        return changed

    @property
    def _prefix(self) -> str:
        return "/" if self.path == "/" else f"{self.path}/"

    def _put(self, path: str, log: L, seen: Seen) -> None:
        self.files[path] = log, seen
        if abs(time.time() - seen.mtime / 1e9) < LATELY_S:
            self._lately[path] = time.monotonic()

    def _due(self) -> Iterator[str]:
        if len(self.files) <= MANY:
            yield from self.files
            return
        yield from self._lately
        for _ in range(MANY):
            path = next(self._turn, "")
            if not path:
                self._turn = iter(list(self.files))
                return
            yield path

    def _again(self, path: str, seen: Callable[[str, str], Seen | None], now: float) -> bool:
        """Look a known file up; whether it has changed."""
        log, known = self.files[path]
        found = seen(path.rpartition("/")[2], path)
        if found == known:
            if now - self._lately.get(path, now) > LATELY_S:
                del self._lately[path]
            return False
        if found is None:
            del self.files[path]
            self._lately.pop(path, None)
        else:
            self.files[path] = log, found
            self._lately[path] = now
        if found is None or found.key != known.key:
            self._listed = None  # names have changed, so there is more to be seen
        return True

    def _seen(self, place: folders.Place, name: str, path: str) -> Seen | None:
        try:
            status = os.stat(name, dir_fd=place.descriptor, follow_symlinks=False)
        except OSError:
            return None  # renamed or deleted since it was listed
        if reason := place.objection(status):
            if not _is_folder(status) and len(self.refused) < MAX_NAMED:
                self.refused[path] = reason
            return None
        return Seen((status.st_dev, status.st_ino), path, status.st_size, status.st_mtime_ns)


def _is_folder(status: os.stat_result) -> bool:
    return status.st_mode & 0o170000 == 0o040000


class Pattern(Generic[L]):
    """The files that a path with wildcards finds, as `glob` reads it, in folders found without following links."""

    def __init__(self, pattern: str, log: L, is_left_out: Callable[[str], bool]) -> None:
        parts = os.path.abspath(pattern).split("/")[1:]  # noqa: PTH100  (a link stays one)
        if parts[-1] == "**":
            parts.append("*")
        fixed = next((index for index, part in enumerate(parts[:-1]) if has_magic(part)), len(parts) - 1)
        self._base, self._parts = "/" + "/".join(parts[:fixed]), parts[fixed:-1]
        self._log, self._is_left_out = log, is_left_out
        self._matches = _matcher(parts[-1])
        self.folders: dict[str, Folder[L]] = {}
        self.limit = ""  # why not all folders were looked at
        self._walk_at = 0.0

    def look(self) -> bool:
        """Look again; whether anything has changed."""
        changed = False
        if time.monotonic() >= self._walk_at:
            began = time.monotonic()
            found = dict.fromkeys(self._walk(began + MAX_WALK_S))
            changed = any(self.folders[path].files for path in self.folders.keys() - found.keys())
            self.folders = {path: self.folders.get(path) or Folder(path, self._owner) for path in found}
            self._walk_at = time.monotonic() + (time.monotonic() - began) / _WALK_SHARE
        for folder in self.folders.values():
            changed = folder.look() or changed
        return changed

    def _owner(self, name: str) -> L | None:
        return self._log if self._matches(name) and not self._is_left_out(name) else None

    def _walk(self, deadline: float) -> Iterator[str]:
        """Folders that match all but the last part, at most MAX_FOLDERS of those looked at until `deadline`."""
        self.limit, looked_at = "", 0
        waiting = [(self._base, 0)]
        known = set(waiting)
        while waiting:
            path, index = waiting.pop()
            if index == len(self._parts):
                yield path
                continue
            looked_at += 1
            if looked_at > MAX_FOLDERS or time.monotonic() > deadline:
                self.limit = f"more than {MAX_FOLDERS} folders, or more than can be looked at in {MAX_WALK_S:g} s"
                return
            for step in self._steps(path, index):
                if step not in known:
                    known.add(step)
                    waiting.append(step)

    def _steps(self, path: str, index: int) -> Iterator[tuple[str, int]]:
        part = self._parts[index]
        anywhere = part == "**"
        matches = _matcher("*" if anywhere else part)
        for name in sorted(_subfolders(path), reverse=True):
            if matches(name):
                yield f"{path.rstrip('/')}/{name}", index if anywhere else index + 1
        if anywhere:
            yield path, index + 1


def _subfolders(path: str) -> list[str]:
    try:
        with folders.opened(path) as place, os.scandir(place.descriptor) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []  # not there, or not readable


def _matcher(part: str) -> Callable[[str], bool]:
    """Whether a name matches one part of a pattern; those that begin with a dot only if the part does, too."""
    expression, hidden = re.compile(fnmatch.translate(part)), part.startswith(".")
    return lambda name: (hidden or not name.startswith(".")) and expression.match(name) is not None
