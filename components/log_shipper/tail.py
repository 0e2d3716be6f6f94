"""The files of one log, followed through renames, truncation, deletion and inode reuse.

Used by one thread at a time: what a scan saw comes in with `update`, what is to be read goes out with `unread`. Of many
files those that have been delivered and lie still are settled: their marks are in the checkpoint alone.
"""

import itertools
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from edgeml.log import kv
from log_shipper.identity import MIN_CONTENT, Key, Mark, Seen
from log_shipper.logfile import LogFile
from log_shipper.origins import Names, Origins, is_copy

log = logging.getLogger(__name__)

MAX_OPEN = 32  # files of one log held open because they have something undelivered
MAX_FOLLOWED = 2_000  # files of one log; more of them only while they are being delivered
MAX_NAMED = 100  # files that cannot be read
_TAKE_IN_S = 1.0  # at a time


@dataclass
class Changes:
    """What an update means for the checkpoint."""

    adopted: dict[Key, Mark] = field(default_factory=dict)
    forgotten: set[Key] = field(default_factory=set)


class Tail:
    """All files of one log. `marks` are the delivered offsets of an earlier run; `recall` finds that of one file."""

    def __init__(self, marks: dict[Key, Mark], recall: Callable[[Key], Mark | None] = lambda key: None) -> None:
        self.files: dict[Key, LogFile] = {}
        self.settled: dict[Key, Seen] = {}
        self.later: dict[Key, Seen] = {}  # not looked into yet, while there are enough others; oldest first
        self.lost_bytes = 0  # vanished before they were delivered
        self.unreadable: dict[str, str] = {}  # why, by path
        self._recall = recall
        self._origins = Origins(marks)

    def update(self, seen: Iterable[Seen]) -> Changes:
        """Take over what a scan saw."""
        picture = {item.key: item for item in seen}
        changes = Changes()
        self.unreadable = {}
        fresh = []
        for key, item in picture.items():
            if key in self.settled and not self._wakes(key, item):
                continue
            file = self.files.get(key)
            if file is None or self._forgets_young(file):
                fresh.append(item)
            else:
                self._check(file, item)
        fresh.sort(key=lambda item: (item.mtime, item.path))
        before, missing = self.later, self.later.keys() - picture.keys()
        self.later = {item.key: item for item in fresh}
        self._take_in(changes)
        self._resolve_copies(changes)
        self._vanish(picture, changes)
        for key in missing:
            self.lost_bytes += before[key].size
            log.error("deleted before it was read %s", kv(file=before[key].path, bytes=before[key].size))
        self._expire(changes)
        self._hold_open()
        self._settle()
        return changes

    def take_in(self) -> Changes:
        """Look into more files, if there are many."""
        changes = Changes()
        if self.later:
            self._take_in(changes)
            self._hold_open()
        return changes

    def _take_in(self, changes: Changes) -> None:
        began = time.monotonic()
        while self.later:
            self._settle()
            room = MAX_FOLLOWED - len(self.files)
            if room <= 0 or time.monotonic() - began > _TAKE_IN_S:
                return
            items = list(itertools.islice(self.later.values(), room))
            for item in items:
                del self.later[item.key]
            self._appear(items, changes)

    def forget(self, seen: Seen) -> bool:
        """Know a file no more that has been deleted as it was seen: its key may be another's by now."""
        file = self.files.get(seen.key)
        if file is not None and file.is_as(seen):
            file.close()
            del self.files[seen.key]
        elif self.settled.get(seen.key) == seen:
            del self.settled[seen.key]
        elif self.later.get(seen.key) == seen:
            del self.later[seen.key]
        else:
            return False
        return True

    def has_delivered(self, seen: Seen) -> bool:
        """Whether all of a file has been delivered as it was seen; any thread may ask."""
        if self.settled.get(seen.key) == seen:
            return True
        file = self.files.get(seen.key)
        return file is not None and file.is_as(seen) and not file.copy_of and file.mark.offset >= seen.size

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
                file.rest()

    def rewind(self) -> None:
        for file in self.files.values():
            file.rewind()

    def newest(self) -> LogFile | None:
        return max(self.files.values(), key=lambda file: (file.mtime, file.path), default=None)

    def backlog(self) -> int:
        """Bytes not yet delivered."""
        files, later = list(self.files.values()), list(self.later.values())  # another thread may ask
        return sum(file.undelivered for file in files) + sum(item.size for item in later)

    def close(self) -> None:
        for file in self.files.values():
            file.close()

    def _check(self, file: LogFile, item: Seen) -> None:
        if file.is_as(item):
            return
        if (item.size, item.mtime) == (file.size, file.mtime):
            file.path = item.path
            return
        before, file.path = file.path, item.path
        if not file.open():
            if file.reason:
                self._cannot_read(file)
            file.path = before  # perhaps another one by now: the next scan tells
            return
        if file.goes_on(item.size):
            file.size, file.mtime = item.size, item.mtime
            return
        log.info("file was truncated or replaced %s", kv(file=file.path, undelivered_bytes=file.undelivered))
        self._origins.truncated(file)
        fresh = LogFile(item)
        fresh.fd, file.fd, file.gone = file.fd, -1, True
        fresh.begins_as_before()
        self.files[file.key] = fresh

    def _wakes(self, key: Key, item: Seen) -> bool:
        """Whether a settled file has changed; it is then followed again, from where it was."""
        known = self.settled[key]
        if known is item or known[2:] == item[2:]:
            self.settled[key] = item
            return False
        mark = self._recall(key)
        del self.settled[key]
        if mark is not None:
            file = self.files[key] = LogFile(known)
            file.mark, file.position, file.resting = mark, mark.offset, True
            file.head_size, file.head = mark.head_size, mark.head
        return True

    def _settle(self) -> None:
        """Follow no more files than needed: those that lie still longest are settled first."""
        limit = MAX_FOLLOWED // 2 if self.later else MAX_FOLLOWED
        if len(self.files) <= limit:
            return
        kept = {id(file.copy_of) for file in self.files.values()} | {id(self.newest())}
        still = [
            file
            for file in self.files.values()
            if file.fd < 0 and not file.undelivered and not file.copy_of and not file.gone and id(file) not in kept
        ]
        still.sort(key=lambda file: file.mtime)
        for file in still[: len(self.files) - limit]:
            self.settled[file.key] = Seen(file.key, file.path, file.size, file.mtime)
            del self.files[file.key]

    def _forgets_young(self, file: LogFile) -> bool:
        """Forget a file that had too little in it to tell whether it is a copy, so that it is looked at again."""
        if file.size >= MIN_CONTENT or file.position or file.copy_of:
            return False
        file.close()
        del self.files[file.key]
        return True

    def _appear(self, items: list[Seen], changes: Changes) -> None:
        unknown = []
        for number, item in enumerate(items):  # by key first, lest a copy takes what is another file's own
            file = LogFile(item)
            if not self._opens(file):
                continue
            if self._origins.resumes(file):
                self.files[file.key] = file
                if not file.unread:
                    file.rest()
            else:
                unknown.append(file)
            if number >= MAX_OPEN:
                file.close()
        names = Names(self.files.values() if unknown else ())
        for number, file in enumerate(sorted(unknown, key=lambda file: file.mtime)):
            if not file.open():
                continue  # the next scan finds it elsewhere, or another in its place
            if not self._adopt(file, changes):
                file.copy_of = names.original(file)
            self.files[file.key] = file
            if number >= MAX_OPEN:
                file.close()

    def _opens(self, file: LogFile) -> bool:
        """Open a new file that is still as it was seen, and take note if it may not be read."""
        if not file.open():
            if file.reason:
                self._cannot_read(file)
            return False
        if not file.begins_as_before():
            file.close()
            return False
        return True

    def _cannot_read(self, file: LogFile) -> None:
        if len(self.unreadable) < MAX_NAMED:
            self.unreadable[file.path] = file.reason

    def _adopt(self, file: LogFile, changes: Changes) -> bool:
        found = self._origins.adopts(file)
        if found:
            changes.adopted[file.key] = file.mark
        return found

    def _resolve_copies(self, changes: Changes) -> None:
        """A copy takes its original's place when that is truncated or deleted; if it grows by itself it is none."""
        for copy in self.files.values():
            original = copy.copy_of
            if original is None or not copy.open():
                continue
            if original.gone:
                copy.copy_of = None
                self._adopt(copy, changes)
            elif not is_copy(copy, original):
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
        for key in self.settled.keys() - picture.keys():
            del self.settled[key]
            changes.forgotten.add(key)

    def _expire(self, changes: Changes) -> None:
        for orphan in self._origins.expire():
            if orphan.undelivered:
                self.lost_bytes += orphan.undelivered
                log.error(
                    "a file was truncated and no copy of its undelivered lines was found %s",
                    kv(bytes=orphan.undelivered),
                )
            if orphan.key not in self.files and orphan.key not in self.settled:
                changes.forgotten.add(orphan.key)

    def _hold_open(self) -> None:
        """Open what could vanish with undelivered lines in it, close what is done with."""
        newest = self.newest()
        waiting = []
        for file in self.files.values():
            if file.undelivered or file is newest:
                waiting.append(file)
            elif file.fd >= 0:
                file.close()
        waiting.sort(key=lambda file: (file is not newest, file.fd < 0))
        for number, file in enumerate(waiting):
            if number >= MAX_OPEN:
                file.close()
            else:
                file.open()


def marks_of(files: Iterable[LogFile]) -> dict[Key, Mark]:
    """What to record once everything that was read of `files` has been delivered."""
    return {file.key: file.reached() for file in files}
