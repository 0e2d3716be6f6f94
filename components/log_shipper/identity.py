"""Which file is which: rotation renames it, copytruncate copies it, a new file may get an old one's inode.

Device and inode name a file while it lives; what it holds tells whether it is still the same. Device numbers may
change with a reboot, and copies have inodes of their own, so a file can also be found again by content alone.
"""

import hashlib
import os
from typing import NamedTuple

HEAD = 256  # bytes at the start of a file that identify it
ANCHOR = 64  # bytes before the delivered offset
MIN_CONTENT = 64  # shorter heads are too alike to identify a file by content alone

Key = tuple[int, int]  # st_dev, st_ino


class Seen(NamedTuple):
    """A file as a scan of the folder found it; `mtime` in ns."""

    key: Key
    path: str
    size: int
    mtime: int


class Mark(NamedTuple):
    """How far a file has been delivered, and what must lie before that for it to be that file."""

    offset: int
    head_size: int
    head: bytes
    anchor: bytes

    def fits(self, fd: int, size: int) -> bool:
        """Whether the open file of `size` bytes holds what this mark was made of."""
        return (
            size >= max(self.offset, self.head_size)
            and digest(fd, 0, self.head_size) == self.head
            and digest(fd, max(0, self.offset - ANCHOR), min(ANCHOR, self.offset)) == self.anchor
        )


START = Mark(0, 0, b"", b"")


def digest(fd: int, start: int, size: int) -> bytes:
    """Of `size` bytes from `start`; of nothing if there are none."""
    return hashed(os.pread(fd, size, start)) if size else b""


def hashed(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest() if data else b""
