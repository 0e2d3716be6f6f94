"""Cameras of the machine: their stable names, and what they can give. Source: linux/videodev2.h."""

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from edgeml import redact
from edgeml.errors import SourceError

NAMES = Path("/dev/v4l/by-id")  # links that stay the same wherever a camera is plugged in
MAX_FORMATS, MAX_SIZES, MAX_RATES, MAX_TEXT = 16, 64, 16, 300

# Requests by the size of what they fill: index and, where needed, pixel format and size in front.
_ENUM_FORMATS, _ENUM_SIZES, _ENUM_RATES = 0xC0405602, 0xC02C564A, 0xC034564B
_FORMAT = struct.Struct("=III32sI16x")
_SIZE = struct.Struct("=IIIII24x")
_RATE = struct.Struct("=IIIIIII24x")
_CAPTURE, _DISCRETE = 1, 1

_TRY_FORMAT = 0xC0D05640 if struct.calcsize("P") == 8 else 0xC0CC5640
_TRIED = struct.Struct("=I4xIII188x" if struct.calcsize("P") == 8 else "=IIII188x")
PREFERRED = ("YUYV", "UYVY", "NV12", "MJPG", "GREY")  # where nobody says

Ioctl = Callable[[int, int, bytes], bytes]


def device(place: str) -> Path:
    """The device that `place` names, a number or a path, after it has been opened once.

    Raises SourceError that says why it cannot be used, and what there is instead.
    """
    named = f"/dev/video{int(place)}" if place.isascii() and place.isdigit() else place
    shown, path = redact.location(named), Path(os.path.realpath(named))
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISCHR(os.fstat(descriptor).st_mode):
                raise SourceError(f"{shown}: cannot be opened as device: it is none")
        finally:
            os.close(descriptor)
    except OSError as error:
        raise SourceError(f"{shown}: cannot be opened as device: {_reason(error)}") from error
    return path


def _reason(error: OSError) -> str:
    if error.errno == errno.EACCES:
        return "permission denied; is the user in the group video?"
    if error.errno == errno.EBUSY:
        return "another program has it"
    there = _names()
    return f"{(error.strerror or str(error)).lower()}; there is {', '.join(there) if there else 'no camera'}"


def _names() -> list[str]:
    """Stable names where there are any, else /dev/video0 and its like."""
    try:
        stable = sorted(map(str, NAMES.iterdir()))
    except OSError:
        stable = []
    return (stable or sorted(map(str, Path("/dev").glob("video[0-9]*"))))[:8]


def offered(path: Path, ioctl: Ioctl = fcntl.ioctl) -> str:
    """What the device gives, in words: `MJPG 1920x1080 (30, 15/s), 1280x720 (60/s); YUYV 640x480 (30/s)`."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return "it does not say"
    try:
        found = "; ".join(_described(descriptor, code, ioctl) for code in _formats(descriptor, ioctl))
    finally:
        os.close(descriptor)
    return (found if len(found) <= MAX_TEXT else found[: MAX_TEXT - 4] + " ...") or "it does not say"


def settled(
    path: Path, wanted: str, width: int, height: int, ioctl: Ioctl = fcntl.ioctl
) -> tuple[str, tuple[int, int]]:
    """The format and the size, (width, height), in which the device gives frames when it is asked for these.

    No format is wanted where that is empty, and none is known where the answer is. Raises SourceError for a format that
    it does not give.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise SourceError(f"{path}: cannot be opened as device: {_reason(error)}") from error
    try:
        there = [code.to_bytes(4, "little").decode("latin-1") for code in _formats(descriptor, ioctl)]
        if wanted and there and wanted not in there:
            raise SourceError(f"{path}: does not give {wanted}; it gives {offered(path, ioctl)}")
        taken = wanted or next((name for name in PREFERRED if name in there), "")
        code = int.from_bytes(taken.encode(), "little")
        answer = _TRIED.unpack(ioctl(descriptor, _TRY_FORMAT, _TRIED.pack(_CAPTURE, width, height, code)))
        return taken, (answer[1] or width, answer[2] or height)
    except OSError:  # drivers need not have this request
        return wanted, (width, height)
    finally:
        os.close(descriptor)


def _described(descriptor: int, code: int, ioctl: Ioctl) -> str:
    sizes = [f"{w}x{h}{_rates(descriptor, code, w, h, ioctl)}" for w, h in _sizes(descriptor, code, ioctl)]
    return f"{code.to_bytes(4, 'little').decode('latin-1').strip()} {', '.join(sizes) or 'of any size'}"


def _formats(descriptor: int, ioctl: Ioctl) -> Iterator[int]:
    for answer in _asked(descriptor, _ENUM_FORMATS, _FORMAT, MAX_FORMATS, ioctl, _CAPTURE, 0, b"", 0):
        yield answer[4]


def _sizes(descriptor: int, code: int, ioctl: Ioctl) -> Iterator[tuple[int, int]]:
    for _, _, kind, width, height in _asked(descriptor, _ENUM_SIZES, _SIZE, MAX_SIZES, ioctl, code, 0, 0, 0):
        if kind != _DISCRETE:  # any size between two
            return
        yield width, height


def _rates(descriptor: int, code: int, width: int, height: int, ioctl: Ioctl) -> str:
    rates = []
    for answer in _asked(descriptor, _ENUM_RATES, _RATE, MAX_RATES, ioctl, code, width, height, 0, 0, 0):
        kind, above, below = answer[4:]
        if kind != _DISCRETE or not above:
            break
        rates.append(f"{below / above:g}")
    return f" ({', '.join(rates)}/s)" if rates else ""


def _asked(
    descriptor: int, request: int, form: struct.Struct, most: int, ioctl: Ioctl, *fields: int | bytes
) -> Iterator[tuple[int, ...]]:
    """The answers for index 0, 1, ... until the driver has no more."""
    for index in range(most):
        try:
            answer = ioctl(descriptor, request, form.pack(index, *fields))
        except OSError:
            return
        yield form.unpack(answer)
