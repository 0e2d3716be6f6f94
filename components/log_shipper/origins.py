"""Where a new file comes from: it is one of before, moved or truncated, a copy of one that is followed, or new."""

import os
from collections.abc import Iterable, Iterator

from log_shipper.identity import MIN_CONTENT, Key, Mark
from log_shipper.logfile import LogFile
from log_shipper.orphans import Orphan, Orphans

_PATIENCE = 3  # scans that the copy of a truncated file has to appear
_PATIENCE_AT_START = 86_400  # the same for what an earlier run knew: its disk may be mounted later


class Origins:
    """What has been delivered of files that are no longer under their keys. Files given here are open."""

    def __init__(self, marks: dict[Key, Mark]) -> None:
        self._orphans = Orphans(Orphan(key, found, 0, _PATIENCE_AT_START) for key, found in marks.items())

    def truncated(self, file: LogFile) -> None:
        """What was in a file stands in a copy that may appear."""
        self._orphans.add(Orphan(file.key, file.mark, file.undelivered, _PATIENCE, file.head_size, file.head))

    def resumes(self, file: LogFile) -> bool:
        """Go on where an earlier run was, if the file still has its key."""
        own = self._orphans.of(file.key)
        if own is None or not own.mark.fits(file.fd, file.size):
            return False
        self._orphans.remove(own)
        file.resume(own.mark)
        return True

    def adopts(self, file: LogFile) -> bool:
        """Find the file again by what it holds: it was moved, or is what copytruncate left of a truncated one."""
        file.size = os.fstat(file.fd).st_size
        for orphan in self._orphans.like(file.fd):
            if orphan.mark.offset and not orphan.mark.fits(file.fd, file.size):
                continue
            self._orphans.remove(orphan)
            if not orphan.mark.offset:
                return False  # nothing had been delivered: its copy is read from the start
            file.resume(orphan.mark)
            return True
        return False

    def expire(self) -> Iterator[Orphan]:
        """Call once a scan; those that were not found again in all their time, each once."""
        for orphan in self._orphans:
            orphan.patience -= 1
            if orphan.patience <= 0:
                self._orphans.remove(orphan)
                yield orphan


class Names:
    """Files by their names, and by what comes before the last dot: there may be thousands."""

    def __init__(self, files: Iterable[LogFile]) -> None:
        self._files: dict[str, list[LogFile]] = {}
        for file in files:
            name = _name(file)
            for key in {name, _stem(name)}:
                self._files.setdefault(key, []).append(file)

    def original(self, copy: LogFile) -> LogFile | None:
        """The file that this one is a copy of."""
        name = _name(copy)
        ends = (index for index, character in enumerate(name) if character in ".-")
        candidates = (file for end in ends for file in self._files.get(name[:end], ()))
        return next((file for file in candidates if is_copy(copy, file)), None)


def is_copy(copy: LogFile, original: LogFile) -> bool:
    """Whether one is copytruncate's copy (`app.log.1` of `app.log`) of the other, perhaps still in the making.

    Its lines would be sent twice. A new file that only begins like an older one does not end like it.
    """
    source = _name(original)
    if not _name(copy).startswith((f"{source}.", f"{source}-", f"{_stem(source)}-")):
        return False
    if copy.size < MIN_CONTENT or not original.open():
        return False
    if original.holds(copy):
        return True
    # The original has been truncated since the scan: what has been delivered of it must be in its copy.
    intact = os.fstat(original.fd).st_size >= copy.size and original.begins_as_before()
    return not intact and original.mark.head_size >= MIN_CONTENT and original.mark.fits(copy.fd, copy.size)


def _name(file: LogFile) -> str:
    return os.path.basename(file.path)  # noqa: PTH119  (Path takes six times as long)


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name
