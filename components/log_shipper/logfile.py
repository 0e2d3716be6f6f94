"""One log file: what has been read of it, what delivered, and whether it is still the same."""

import os

from log_shipper.folders import open_file
from log_shipper.identity import ANCHOR, HEAD, MIN_CONTENT, START, Mark, Seen, digest, hashed
from log_shipper.records import Attach


class LogFile:
    """One file: `mark` is what has been delivered, `position` and `attach` where reading goes on."""

    __slots__ = (
        *("attach", "copy_of", "delivered_attach", "fd", "gone", "head", "head_size", "key", "line_time", "mark"),
        *("mtime", "path", "position", "reason", "resting", "size", "_delivered_last", "_first", "_last"),
    )

    def __init__(self, seen: Seen) -> None:
        self.key, self.path, self.size, self.mtime = seen
        self.reason = ""  # why it could not be opened; empty if it was only no longer there
        self.resting = False
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
            self.fd, self.reason = open_file(self.path, self.key), ""
        except FileNotFoundError:
            self.reason = ""
            return False
        except OSError as error:
            self.reason = error.strerror or str(error)
            return False
        return True

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def rest(self) -> None:
        """Close the file and keep no more of it than tells whether it is the same: all of it has been delivered."""
        self.close()
        self._first = self._last = self._delivered_last = b""
        self.resting = True

    def is_as(self, seen: Seen) -> bool:
        """Whether this is the file as it was when it was seen."""
        return (self.key, self.path, self.size, self.mtime) == seen

    def goes_on(self, size: int) -> bool:
        """Whether the open file, by now of `size` bytes, is the one that was read. One that rested does so no more."""
        if size < self.position or not self.begins_as_before():
            return False
        if self.resting:
            if not self.mark.fits(self.fd, size):
                return False
            self.resume(self.mark)
        return digest(self.fd, self.position - len(self._last), len(self._last)) == hashed(self._last)

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
        self.resting = False
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
        return self.goes_on(os.fstat(self.fd).st_size)

    def holds(self, other: "LogFile") -> bool:
        """Whether the other file is a piece of this one, from its start: both begin and end alike. Both are open."""
        size, end = other.size, other.size - MIN_CONTENT
        return os.fstat(self.fd).st_size >= size and all(
            digest(self.fd, start, length) == digest(other.fd, start, length)
            for start, length in ((0, min(HEAD, size)), (end, MIN_CONTENT))
        )
