"""The files of one log, followed through renames, truncation, deletion and inode reuse.

Used by one thread at a time: what a scan saw comes in with `update`, what is to be read goes out with `unread`.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from edgeml.log import kv
from log_shipper.identity import ANCHOR, HEAD, MIN_CONTENT, START, Key, Mark, Seen, digest, hashed
from log_shipper.parse import Attach

log = logging.getLogger(__name__)

MAX_OPEN = 32  # files of one log held open because they have something undelivered
_PATIENCE = 3  # scans that the copy of a truncated file has to appear
_PATIENCE_AT_START = 86_400  # the same for what an earlier run knew: its disk may be mounted later


class LogFile:
    """One file: `mark` is what has been delivered, `position` and `attach` where reading goes on."""

    def __init__(self, seen: Seen) -> None:
        self.key, self.path, self.size, self.mtime = seen
        self.mark = START
        self.position = 0
        self.attach = self.delivered_attach = Attach.NOTHING
        self.line_time = 0  # with Attach.LINE: the time of the line, Unix ms
        self._first = self._last = self._delivered_last = (
            b""  # bytes at the start and before `position`, as they were read
        )
        self.head_size, self.head = 0, b""  # how the file began when it was looked at last
        self.fd = -1
        self.gone = False
        self.copy_of: LogFile | None = None

    @property
    def unread(self) -> int:
        return self.size - self.position

    @property
    def undelivered(self) -> int:
        return 0 if self.copy_of else max(0, self.size - self.mark.offset)

    def open(self) -> bool:
        """Open the file if it is still the one that was seen. Once open it outlives its name."""
        if self.fd >= 0:
            return True
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError:
            return False
        status = os.fstat(fd)
        if (status.st_dev, status.st_ino) != self.key:
            os.close(fd)
            return False
        self.fd = fd
        return True

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def read(self, size: int) -> bytes:
        return os.pread(self.fd, size, self.position)

    def advance(self, block: bytes, used: int) -> None:
        """Go on after the first `used` bytes of what was read."""
        self.position += used
        if len(self._first) < HEAD:
            self._first = (self._first + block[: min(used, HEAD)])[:HEAD]
        self._last = (self._last + block[max(0, used - ANCHOR) : used])[-ANCHOR:]

    def reached(self) -> Mark:
        """The mark of `position`. It is made of what was read, for the file may have been truncated since."""
        return Mark(self.position, len(self._first), hashed(self._first), hashed(self._last))

    def delivered(self, upto: Mark) -> None:
        self.mark, self.delivered_attach, self._delivered_last = upto, self.attach, self._last

    def rewind(self) -> None:
        self.position, self.attach, self._last = self.mark.offset, self.delivered_attach, self._delivered_last
        self._first = self._first[: self.position]

    def resume(self, at: Mark) -> None:
        """Go on where an earlier run, or the file of which this is a copy, was. The file is open and fits the mark."""
        self._first = os.pread(self.fd, at.head_size, 0)
        self._last = os.pread(self.fd, min(ANCHOR, at.offset), max(0, at.offset - ANCHOR))
        self.position = at.offset
        self.delivered(at)

    def begins_as_before(self) -> bool:
        """Whether the open file still begins as it did; what identifies it grows with it up to HEAD bytes."""
        if self.head_size > self.size or digest(self.fd, 0, self.head_size) != self.head:
            return False
        if self.head_size < HEAD:
            self.head_size = min(HEAD, self.size)
            self.head = digest(self.fd, 0, self.head_size)
        return True

    def is_intact(self) -> bool:
        """Whether the open file still holds what was read of it."""
        return os.fstat(self.fd).st_size >= self.position and self.begins_as_before()

    def holds(self, other: "LogFile") -> bool:
        """Whether the other file is a piece of this one, from its start: both begin and end alike. Both are open."""
        size, end = other.size, other.size - MIN_CONTENT
        return os.fstat(self.fd).st_size >= size and all(
            digest(self.fd, start, length) == digest(other.fd, start, length)
            for start, length in ((0, min(HEAD, size)), (end, MIN_CONTENT))
        )


@dataclass
class Orphan:
    """A mark whose file is no longer under its key: truncated, replaced, or not found again after a restart."""

    key: Key
    mark: Mark
    undelivered: int
    patience: int
    head_size: int = 0  # how the file began, if it was seen
    head: bytes = b""

    def begins(self, fd: int) -> bool:
        return self.head_size >= MIN_CONTENT and digest(fd, 0, self.head_size) == self.head


@dataclass
class Changes:
    """What an update means for the checkpoint."""

    adopted: dict[Key, Mark] = field(default_factory=dict)
    forgotten: set[Key] = field(default_factory=set)


class Tail:
    """All files of one log. `marks` are the delivered offsets of an earlier run."""

    def __init__(self, marks: dict[Key, Mark]) -> None:
        self.files: dict[Key, LogFile] = {}
        self.lost_bytes = 0  # vanished before they were delivered
        self._orphans = [Orphan(key, found, 0, _PATIENCE_AT_START) for key, found in marks.items()]
        self._unreadable: set[str] = set()

    def update(self, seen: Iterable[Seen]) -> Changes:
        """Take over what a scan saw."""
        picture = {item.key: item for item in seen}
        changes = Changes()
        for key, item in picture.items():
            if key in self.files and not self._too_young(self.files[key]):
                self._check(self.files[key], item)
        self._appear([LogFile(item) for key, item in picture.items() if key not in self.files], changes)
        self._resolve_copies(changes)
        self._vanish(picture, changes)
        self._expire(changes)
        self._hold_open()
        return changes

    def unread(self) -> Iterator[LogFile]:
        """Files with something to read, oldest first, opened."""
        waiting = [file for file in self.files.values() if file.unread > 0 and file.copy_of is None]
        for file in sorted(waiting, key=lambda file: (not file.gone, file.mtime, file.path)):
            if file.open():
                yield file

    def delivered(self, marks: dict[Key, Mark]) -> None:
        newest = self.newest()
        for key, upto in marks.items():
            file = self.files[key]
            file.delivered(upto)
            if not file.undelivered and file is not newest and not file.gone:
                file.close()

    def rewind(self) -> None:
        for file in self.files.values():
            file.rewind()

    def newest(self) -> LogFile | None:
        return max(self.files.values(), key=lambda file: (file.mtime, file.path), default=None)

    def backlog(self) -> int:
        """Bytes not yet delivered."""
        return sum(file.undelivered for file in self.files.values())

    def close(self) -> None:
        for file in self.files.values():
            file.close()

    def _check(self, file: LogFile, item: Seen) -> None:
        changed = (item.size, item.mtime) != (file.size, file.mtime)
        undelivered = file.undelivered
        file.path, file.size, file.mtime = item.path, item.size, item.mtime
        if not changed or not file.open() or (item.size >= file.position and file.begins_as_before()):
            return
        log.info("file was truncated or replaced %s", kv(file=file.path, undelivered_bytes=undelivered))
        self._orphans.append(Orphan(file.key, file.mark, undelivered, _PATIENCE, file.head_size, file.head))
        fresh = LogFile(item)
        fresh.fd, file.fd, file.gone = file.fd, -1, True
        fresh.begins_as_before()
        self.files[file.key] = fresh

    def _too_young(self, file: LogFile) -> bool:
        """Forget a file that had too little in it to tell whether it is a copy, so that it is looked at again."""
        if file.size >= MIN_CONTENT or file.position or file.copy_of:
            return False
        file.close()
        del self.files[file.key]
        return True

    def _appear(self, files: list[LogFile], changes: Changes) -> None:
        for path in [file.path for file in files if not file.open()]:
            if path not in self._unreadable and Path(path).exists():
                self._unreadable.add(path)
                log.error("cannot read %s", kv(file=path, hint="the component needs the right to read the logs folder"))
        files = [file for file in files if file.fd >= 0 and file.begins_as_before()]
        unknown = []
        for file in files:  # by key first, lest a copy takes what is another file's own
            own = next((orphan for orphan in self._orphans if orphan.key == file.key), None)
            if own is not None and own.mark.fits(file.fd, file.size):
                self._orphans.remove(own)
                file.resume(own.mark)
                self.files[file.key] = file
            else:
                unknown.append(file)
        originals = list(self.files.values())
        for file in sorted(unknown, key=lambda file: file.mtime):
            if not self._adopt(file, changes):
                file.copy_of = next((other for other in originals if _is_copy(file, other)), None)
            self.files[file.key] = file
        for file in files:
            file.close()  # _hold_open decides which stay open

    def _adopt(self, file: LogFile, changes: Changes) -> bool:
        """Find the file again by what it holds: it was moved, or is what copytruncate left of a truncated one."""
        file.size = os.fstat(file.fd).st_size
        for orphan in self._orphans:
            if orphan.mark.head_size >= MIN_CONTENT and orphan.mark.fits(file.fd, file.size):
                self._orphans.remove(orphan)
                file.resume(orphan.mark)
                changes.adopted[file.key] = orphan.mark
                return True
            if not orphan.mark.offset and orphan.begins(file.fd):
                self._orphans.remove(orphan)  # nothing had been delivered: its copy is read from the start
                return False
        return False

    def _resolve_copies(self, changes: Changes) -> None:
        """A copy takes its original's place when that is truncated or deleted; if it grows by itself it is none."""
        for copy in self.files.values():
            original = copy.copy_of
            if original is None or not copy.open():
                continue
            if original.gone:
                copy.copy_of = None
                self._adopt(copy, changes)
            elif not _is_copy(copy, original):
                copy.copy_of = None

    def _vanish(self, picture: dict[Key, Seen], changes: Changes) -> None:
        for key in [key for key in self.files if key not in picture]:
            file = self.files[key]
            file.gone = True
            if file.fd >= 0:
                file.size = os.fstat(file.fd).st_size
                if file.undelivered:
                    continue
            elif file.undelivered:
                self.lost_bytes += file.undelivered
                log.error("deleted before it was delivered %s", kv(file=file.path, bytes=file.undelivered))
            file.close()
            del self.files[key]
            changes.forgotten.add(key)

    def _expire(self, changes: Changes) -> None:
        for orphan in self._orphans:
            orphan.patience -= 1
            if orphan.patience > 0:
                continue
            if orphan.undelivered:
                self.lost_bytes += orphan.undelivered
                log.error(
                    "a file was truncated and no copy of its undelivered lines was found %s",
                    kv(bytes=orphan.undelivered),
                )
            if orphan.key not in self.files:
                changes.forgotten.add(orphan.key)
        self._orphans = [orphan for orphan in self._orphans if orphan.patience > 0]

    def _hold_open(self) -> None:
        """Open what could vanish with undelivered lines in it, close what is done with."""
        newest = self.newest()
        held = 0
        for file in sorted(self.files.values(), key=lambda file: file.fd < 0):
            wanted = bool(file.undelivered) or file is newest
            if not wanted:
                file.close()
            elif file.fd >= 0 or ((held < MAX_OPEN or file is newest) and file.open()):
                held += 1


def marks_of(files: Iterable[LogFile]) -> dict[Key, Mark]:
    """What to record once everything that was read of `files` has been delivered."""
    return {file.key: file.reached() for file in files}


def _is_copy(copy: LogFile, original: LogFile) -> bool:
    """Whether one is copytruncate's copy (`app.log.1` of `app.log`) of the other, perhaps still in the making.

    Its lines would be sent twice. A new file that only begins like an older one does not end like it.
    """
    name, source = Path(copy.path).name, Path(original.path)
    if not name.startswith((f"{source.name}.", f"{source.name}-", f"{source.stem}-")):
        return False
    if copy.size < MIN_CONTENT or not original.open():
        return False
    if original.holds(copy):
        return True
    # The original has been truncated since the scan: what has been delivered of it must be in its copy.
    intact = os.fstat(original.fd).st_size >= copy.size and original.begins_as_before()
    return not intact and original.mark.head_size >= MIN_CONTENT and original.mark.fits(copy.fd, copy.size)
