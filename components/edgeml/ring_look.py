"""What a frame ring says of itself, read from its file: no mapping, no numpy, none of its frames."""

import itertools
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from edgeml._ring_header import HEADER, HEADER_BYTES, NEWEST_AT, check_owner, parse, ring_path
from edgeml.errors import FrameError

PREFIX = "edgeml-"
MAX_FILES = 1000


@dataclass(frozen=True)
class Look:
    """A ring whose writer lives. `age_s` are the seconds since its newest frame was captured; None: it has none."""

    width: int
    height: int
    newest: int
    age_s: float | None


def look(directory: Path, camera: str) -> Look | None:
    """The ring of `camera` as it is now; None where there is none that may be read, or its writer has died."""
    try:
        path = ring_path(directory, camera)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, FrameError):
        return None
    try:
        status = os.fstat(descriptor)
        check_owner(path, status)
        layout, origin = parse(path, os.pread(descriptor, HEADER.size, 0), status.st_size)
        if not origin.alive():
            return None
        (newest,) = struct.unpack("=Q", os.pread(descriptor, 8, NEWEST_AT))
        slot = HEADER_BYTES + newest % layout.slots * layout.slot_bytes
        _, frame_id, captured_ns = struct.unpack("=QQQ", os.pread(descriptor, 24, slot))
    except (OSError, FrameError, struct.error):
        return None
    finally:
        os.close(descriptor)
    age = (time.monotonic_ns() - captured_ns) / 1e9 if frame_id else None
    return Look(layout.width, layout.height, newest, age)


def can_be(camera: str) -> bool:
    """Whether a camera can have this name."""
    try:
        return bool(ring_path(Path(), camera))
    except FrameError:
        return False


def cameras(directory: Path, most: int) -> list[str]:
    """Names of the cameras whose rings are there, `most` at the most; other files of such names are passed over."""
    try:
        with os.scandir(directory) as entries:
            names = sorted(entry.name for entry in entries if entry.name.startswith(PREFIX))[:MAX_FILES]
    except OSError:
        return []
    found = (name.removeprefix(PREFIX) for name in names)
    return list(itertools.islice((name for name in found if look(directory, name) is not None), most))
