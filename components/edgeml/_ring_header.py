"""The header of a frame ring: where it lies, sizes, and whose it is, packed and checked."""

import os
import re
import stat
import struct
from dataclasses import dataclass
from pathlib import Path

from edgeml.errors import FrameError

MAGIC = b"EDGEMLFR"
ABI = 1
HEADER = struct.Struct("=8sIIQQIIIIIIQQQ")
HEADER_BYTES = 4096
SLOT_HEADER_BYTES = 64
NEWEST_AT = 128  # offset of the newest frame's id, u64
GROUP_MODE = 0o640
PIXEL_FORMATS = {"bgr24": 3, "rgb24": 3, "gray8": 1}  # name -> bytes per pixel; the position is the code in the header
_MAX_SIDE = 16384
_MAX_SLOTS = 64
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Layout:
    """Sizes of a ring. Raises FrameError for what no ring can have."""

    width: int
    height: int
    pixel_format: str
    slots: int

    def __post_init__(self) -> None:
        if self.pixel_format not in PIXEL_FORMATS:
            raise FrameError(f"pixel format {self.pixel_format!r}: known are {', '.join(PIXEL_FORMATS)}")
        if not (1 <= self.width <= _MAX_SIDE and 1 <= self.height <= _MAX_SIDE):
            raise FrameError(f"frame size {self.width}x{self.height}: each side must be 1 to {_MAX_SIDE}")
        if not 2 <= self.slots <= _MAX_SLOTS:
            raise FrameError(f"{self.slots} slots: must be 2 to {_MAX_SLOTS}")

    @property
    def channels(self) -> int:
        return PIXEL_FORMATS[self.pixel_format]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a frame: (height, width, channels), or (height, width) for one channel."""
        return (self.height, self.width, self.channels)[: 2 if self.channels == 1 else 3]

    @property
    def image_bytes(self) -> int:
        return self.width * self.height * self.channels

    @property
    def slot_bytes(self) -> int:
        return SLOT_HEADER_BYTES + -(-self.image_bytes // 64) * 64

    @property
    def file_bytes(self) -> int:
        return HEADER_BYTES + self.slots * self.slot_bytes


@dataclass(frozen=True, slots=True)
class Motion:
    """Whether something moves in a frame, and how much of the picture has changed in one piece, 0 to 1."""

    moving: bool
    area: float

    def packed(self) -> int:
        """As it stands in the header of a slot."""
        millionths = round(min(max(self.area, 0.0), 1.0) * 1_000_000)
        return millionths << 32 | (2 if self.moving else 1)

    @classmethod
    def unpacked(cls, word: int) -> "Motion | None":
        """None where nobody looked, and for what no writer of ours writes."""
        state, millionths = word & 0xFFFFFFFF, word >> 32
        return cls(state == 2, millionths / 1_000_000) if state in (1, 2) and millionths <= 1_000_000 else None


@dataclass(frozen=True)
class Origin:
    """Whose ring it is. `stream` is drawn by each writer and kept when it resizes; `base`: its last frame before."""

    pid: int
    started: int
    stream: int
    base: int

    @classmethod
    def here(cls, stream: int, base: int) -> "Origin":
        return cls(os.getpid(), start_time(os.getpid()), stream, base)

    def alive(self) -> bool:
        """Whether the process that wrote the header still lives."""
        return self.started != 0 and start_time(self.pid) == self.started


def pack(layout: Layout, origin: Origin) -> bytes:
    """The header as it stands in the file."""
    code = list(PIXEL_FORMATS).index(layout.pixel_format)
    sizes = (layout.width, layout.height, layout.channels, code, layout.width * layout.channels, 0, layout.slot_bytes)
    return HEADER.pack(MAGIC, ABI, layout.slots, origin.pid, origin.started, *sizes, origin.stream, origin.base)


def parse(path: Path, data: bytes, file_bytes: int) -> tuple[Layout, Origin]:
    """Read a header whose every size must agree with the file. Raises FrameError saying what was expected."""
    if not has_magic(data):
        raise FrameError(f"{path} is not a frame ring: expected the magic {MAGIC!r}, found {data[:8]!r}")
    _, abi, slots, pid, started, width, height, channels, code, stride, _, slot_bytes, stream, base = HEADER.unpack(
        data
    )
    if abi != ABI:
        raise FrameError(f"frame ring {path} has ABI version {abi}, expected {ABI}: writer and reader must match")
    name = list(PIXEL_FORMATS)[code] if code < len(PIXEL_FORMATS) else f"number {code}"
    try:
        layout = Layout(width, height, name, slots)
    except FrameError as error:
        raise FrameError(f"frame ring {path} has a corrupt header: {error}") from error
    expected = (layout.channels, width * layout.channels, layout.slot_bytes, layout.file_bytes)
    found = (channels, stride, slot_bytes, file_bytes)
    if found != expected:
        problem = f"channels, stride, slot bytes, file bytes are {found}, expected {expected}"
        raise FrameError(f"frame ring {path} is corrupt or truncated: {problem}")
    return layout, Origin(pid, started, stream, base)


def has_magic(data: bytes) -> bool:
    """Whether `data` begins with a header of any ABI version."""
    return len(data) >= HEADER.size and data.startswith(MAGIC)


def origin_of(data: bytes) -> Origin:
    """Whose ring it is, of a header of any ABI version: of another one only pid and start time mean something."""
    return Origin(*HEADER.unpack(data)[3:5], *HEADER.unpack(data)[-2:])


def start_time(pid: int) -> int:
    """Start time of a process in clock ticks since boot (/proc/<pid>/stat field 22); 0 if it does not live."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:  # no such process, or none that we may see
        return 0
    return 0 if len(fields) < 20 or fields[0] in (b"Z", b"X") else int(fields[19])


def ring_path(directory: Path, camera: str) -> Path:
    """Where the ring of `camera` lies. Raises FrameError for a name that could leave `directory`."""
    if not _NAME.fullmatch(camera):
        raise FrameError(f"camera name {camera!r}: allowed are 1 to 64 of A-Z a-z 0-9 . _ -, first a letter or digit")
    return directory / f"edgeml-{camera}"


def check_owner(path: Path, status: os.stat_result) -> None:
    """Shared memory is open to all users: a file that another one made or may write is not a ring of ours.

    One of our group may share a ring with it: it is then readable for the group, and for nobody else.
    """
    groups = {os.getegid(), *os.getgroups()}
    shared = stat.S_IMODE(status.st_mode) == GROUP_MODE and status.st_gid in groups
    trusted = status.st_uid == os.geteuid() or os.geteuid() == 0 or shared
    if not stat.S_ISREG(status.st_mode) or not trusted or status.st_mode & 0o022:
        mode, owner = stat.filemode(status.st_mode), status.st_uid
        raise FrameError(f"{path} is not a frame ring: expected a file of user {os.geteuid()}, found {mode} of {owner}")
