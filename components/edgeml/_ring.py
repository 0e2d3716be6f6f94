"""The file of a frame ring: its layout, how it is made, opened and checked.

One page of header, then the slots; all integers are native, all words the two sides race on are aligned.

    0    magic "EDGEMLFR", ABI version u32, slot count u32, writer pid u64, writer start time u64
    32   width u32, height u32, channels u32, pixel format u32, stride u32, 0 u32, slot bytes u64, stream u64, base u64
    128  newest frame id u64, sequence u32 (the futex word, moves with every frame and on close), closed u32
    4096 slot 0: generation u64, frame id u64, captured ns u64, wall ns u64, motion u64, 0 x 3, pixels; slot 1 ...

Frame n lies in slot n % slots. Its generation is 2n - 1 while it is being written and 2n once it is whole. `stream` is
a number drawn by each writer and kept when it resizes; `base` is the id of its last frame before this ring. Magic, pid
and start time stay where they are in every ABI version.

`motion` is 0 where nobody looked; writers of version 1.0 leave it so, their readers do not read it. Else its low half
is 1 for a frame in which nothing moves, 2 for one in which something does, and its high half is how much of the picture
has changed in one piece, in millionths.

Why a torn frame is never taken for a whole one (a seqlock): the writer stores odd generation | pixels | even
generation | newest id, with a full fence at each bar; the reader loads newest id | generation | pixels | generation,
with a fence at each bar, and drops the frame unless both generations are 2n. CPython stores an 8-byte item of a
memoryview by one aligned move on 64-bit machines, which is atomic. On 32-bit ARM it may be two moves; the high half
changes once in 2**31 frames, and a reader that meets just that moment drops a frame or waits a little longer. The
fences are edgeml._futex.Fence. A file that somebody shrinks while it is mapped is noticed before each read, and let go.
Not covered: that it happens during a read (SIGBUS), which needs the same user and is done by nothing here.
"""

import fcntl
import mmap
import os
import pwd
import struct
import threading
import time
from pathlib import Path
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from edgeml import _futex
from edgeml._ring_header import (
    HEADER,
    HEADER_BYTES,
    NEWEST_AT,
    SLOT_HEADER_BYTES,
    Layout,
    Motion,
    Origin,
    check_owner,
    has_magic,
    origin_of,
    pack,
    parse,
)
from edgeml.errors import FrameError, RingNotFoundError

_NEWEST = NEWEST_AT // 8
_SEQUENCE = 136 // 4
_CLOSED = 140 // 4
_mapped: "WeakValueDictionary[tuple[int, int, bytes], Ring]" = WeakValueDictionary()  # by file and header
_mapping = threading.Lock()
MODE = 0o600  # a ring is its user's, or GROUP_MODE: readable for the group


class Ring:
    """A mapped ring file; read-only for a reader. The mapping lives as long as anything refers to it."""

    def __init__(self, descriptor: int, layout: Layout, origin: Origin, protection: int) -> None:
        self.layout, self.origin = layout, origin
        self._file = os.fstat(descriptor)
        # Writers reserve every page. To populate a file full of holes, made by somebody else, would cost its size.
        is_reserved = self._file.st_blocks * 512 >= layout.file_bytes
        flags = mmap.MAP_SHARED | (mmap.MAP_POPULATE if is_reserved else 0)
        self._mapping = mapping = mmap.mmap(descriptor, layout.file_bytes, flags=flags, prot=protection)
        self._fence = _futex.Fence()
        self._words = memoryview(mapping).cast("Q")
        self._halves = memoryview(mapping).cast("I")
        self.sequence_at = int(np.frombuffer(mapping, np.uint32, 1, _SEQUENCE * 4).ctypes.data)
        offsets = [HEADER_BYTES + slot * layout.slot_bytes for slot in range(layout.slots)]
        self._slots = layout.slots
        self._at = [offset // 8 for offset in offsets]
        self._images: list[NDArray[np.uint8]] = [
            np.frombuffer(mapping, np.uint8, layout.image_bytes, offset + SLOT_HEADER_BYTES).reshape(layout.shape)
            for offset in offsets
        ]

    @property
    def newest(self) -> int:
        """Id of the newest frame, loaded after all that was loaded before."""
        self._fence()
        return self._words[_NEWEST]

    @property
    def sequence(self) -> int:
        return self._halves[_SEQUENCE]

    @property
    def closed(self) -> bool:
        return self._halves[_CLOSED] != 0

    def intact(self) -> bool:
        """Whether the file is still as long as the mapping: to touch a page beyond its end would end the process."""
        return self._mapping.size() >= self.layout.file_bytes

    def begin(self, frame_id: int) -> NDArray[np.uint8]:
        """Mark the slot of `frame_id` as being written; its pixels, to be filled."""
        slot = frame_id % self._slots
        self._words[self._at[slot]] = 2 * frame_id - 1
        self._fence()
        return self._images[slot]

    def commit(self, frame_id: int, captured_ns: int, wall_ns: int, motion: Motion | None = None) -> None:
        """Make `frame_id` whole and wake the readers."""
        words, at = self._words, self._at[frame_id % self._slots]
        words[at + 1] = frame_id
        words[at + 2] = captured_ns
        words[at + 3] = wall_ns
        words[at + 4] = 0 if motion is None else motion.packed()
        self._fence()
        words[at] = 2 * frame_id
        self._fence()
        words[_NEWEST] = frame_id
        self._announce()

    def close(self) -> None:
        """Tell the readers that no frame will come here any more."""
        if self.intact():
            self._halves[_CLOSED] = 1
            self._announce()

    def _announce(self) -> None:
        self._fence()
        self._halves[_SEQUENCE] = (self._halves[_SEQUENCE] + 1) & 0xFFFFFFFF
        _futex.wake(self.sequence_at)

    def whole(self, frame_id: int) -> bool:
        """Whether the slot of `frame_id` holds that frame, whole, now."""
        self._fence()
        is_whole = self._words[self._at[frame_id % self._slots]] == 2 * frame_id
        self._fence()
        return is_whole

    def peek(self, frame_id: int) -> tuple[NDArray[np.uint8], int, int, Motion | None]:
        """(pixels, captured_ns, wall_ns, motion) in its slot: those of `frame_id` only if `whole` before and after."""
        slot = frame_id % self._slots
        at = self._at[slot]
        return self._images[slot], self._words[at + 2], self._words[at + 3], Motion.unpacked(self._words[at + 4])

    def is_at(self, path: Path) -> bool:
        """Whether `path` is still this file (its inode cannot be used again while it is mapped here)."""
        return _is_at(path, self._file)


def create_ring(path: Path, layout: Layout, origin: Origin, *, replaces: Ring | None = None, mode: int = MODE) -> Ring:
    """Make a ring at `path`, in place of `replaces` or of one whose writer has died. `mode` is MODE or GROUP_MODE.

    Raises FrameError: another writer lives, a foreign file lies there, no room, no permission.
    """
    building = path.with_name(f".{path.name}.new")
    try:
        _refuse_stranger(building)
        _refuse_stranger(path)
        descriptor = _open_locked(building)
        try:
            if replaces is None or not replaces.is_at(path):
                _refuse_live_writer(path)
            os.ftruncate(descriptor, 0)
            os.fchmod(descriptor, mode)
            # A hole in a full /dev/shm would be a SIGBUS at the first touch: reserve every page now.
            os.posix_fallocate(descriptor, 0, layout.file_bytes)
            os.pwrite(descriptor, pack(layout, origin), 0)
            os.pwrite(descriptor, struct.pack("=Q", origin.base), _NEWEST * 8)
            protection = mmap.PROT_READ | mmap.PROT_WRITE
            ring = Ring(descriptor, layout, origin, protection)
            building.rename(path)
        except BaseException:
            building.unlink(missing_ok=True)
            raise
        finally:
            fcntl.flock(descriptor, fcntl.LOCK_UN)  # the mapping has a duplicate that would keep the lock
            os.close(descriptor)
    except OSError as error:
        need = f"{layout.file_bytes / 1e6:.1f} MB for {layout.slots} frames"
        raise FrameError(f"frame ring {path} ({need}) cannot be made: {error.strerror}") from error
    return ring


def open_ring(path: Path) -> Ring:
    """The ring at `path`, mapped read-only, after its header and size have been checked.

    All readers of this process have one mapping: each would count as memory of its own.

    Raises RingNotFoundError if there is none or its writer has died, FrameError if the file is not a ring.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise RingNotFoundError(f"no frame ring at {path}") from error
    except OSError as error:
        raise FrameError(f"frame ring {path} cannot be opened: {error.strerror}") from error
    try:
        status = os.fstat(descriptor)
        check_owner(path, status)
        header = os.pread(descriptor, HEADER.size, 0)
        layout, origin = parse(path, header, os.fstat(descriptor).st_size)
        if not origin.alive():
            raise RingNotFoundError(f"frame ring {path} was left by process {origin.pid}, which has died")
        with _mapping:
            ring = _mapped.get(key := (status.st_dev, status.st_ino, header))
            if ring is None or not ring.intact():
                ring = _mapped[key] = Ring(descriptor, layout, origin, mmap.PROT_READ)
        return ring
    except (OSError, ValueError, MemoryError) as error:  # no memory for the mapping, or the file has just been cut
        raise FrameError(f"frame ring {path} cannot be mapped: {error}") from error
    finally:
        os.close(descriptor)


def _refuse_live_writer(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        data = os.pread(descriptor, HEADER.size, 0)
    finally:
        os.close(descriptor)
    if not has_magic(data):
        raise FrameError(f"{path} is not a frame ring and is left alone: remove it, or name the camera otherwise")
    owner = origin_of(data)
    if owner.alive():
        raise FrameError(f"frame ring {path} belongs to process {owner.pid}, which is alive: one writer per camera")


def _refuse_stranger(path: Path) -> None:
    """In /dev/shm every user can take a name, and only that user, or root, can give it back."""
    try:
        owner = path.lstat().st_uid
    except FileNotFoundError:
        return
    if os.geteuid() not in (0, owner):
        raise FrameError(f"{path} belongs to {_user(owner)}: let it be removed, or name the camera otherwise")


def _user(number: int) -> str:
    try:
        return f"user {pwd.getpwuid(number).pw_name} ({number})"
    except KeyError:
        return f"user {number}"


def _open_locked(path: Path) -> int:
    """Open the file a ring is built in, as the only writer: of two that start at once, one waits for the other."""
    for _ in range(100):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(descriptor)
            if _is_at(path, status):
                check_owner(path, status)
                return descriptor
        except BlockingIOError:
            time.sleep(0.01)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise FrameError(f"another writer keeps {path} locked")


def _is_at(path: Path, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.lstat(), status)
    except FileNotFoundError:
        return False
