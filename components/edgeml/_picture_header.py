"""How large a picture is, told from its bytes before a decoder sees them, and whether it is whole.

Only formats are read here whose every size is found as their decoder finds it. Sources: ITU-T T.81 annex B and the
marker reader of libjpeg; PNG 1.2 chapter 3; the BITMAPINFOHEADER of Windows; RFC 9649 (WebP).
"""

import re
from dataclasses import dataclass

MAX_MARKERS = 10_000  # of a JPEG before its first scan, chunks of a WebP
MAX_CHUNKS = 200_000  # of a PNG
MAX_SCANS = 100  # of a progressive JPEG: each costs as much as the whole picture

# What else a file may be, to name it when it is refused.
OTHERS = (
    (b"GIF8", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL", "JPEG XL"),
    (b"#?R", "Radiance HDR"),
    (b"v/1\x01", "OpenEXR"),
    (b"\x59\xa6\x6a\x95", "Sun raster"),
    (b"\0\0\1\0", "ICO"),
    (b"8BPS", "Photoshop"),
    (b"%PDF", "PDF"),
    (b"PK\3\4", "ZIP"),
    (b"<", "XML, SVG or HTML"),
)


class HeaderError(ValueError):
    """Why a picture is refused."""


class NoSizeError(HeaderError):
    """It begins like a picture, but ends before its size is said."""

    def __init__(self) -> None:
        super().__init__("no size found, or cut off before it")


@dataclass(frozen=True)
class Header:
    """`end` is where a JPEG's end marker stands; 0 in other formats. `scans` is the number of its scans."""

    format: str
    width: int
    height: int
    end: int = 0
    scans: int = 0


def read(data: bytes) -> Header | None:
    """The header of a JPEG, PNG, BMP or WebP; None for anything else. Raises HeaderError when it is damaged or cut."""
    if data.startswith(b"\xff\xd8\xff"):
        return _jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png(data)
    if data.startswith(b"BM") and len(data) >= 26:
        return _bmp(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _webp(data)
    return None


def name_of(data: bytes) -> str:
    """What the bytes of another format begin like; empty when they are nothing that is known."""
    if data[4:8] == b"ftyp":
        return "HEIF or AVIF"
    if re.match(rb"P[1-7fF]\s", data):
        return "PNM"
    return next((name for magic, name in OTHERS if data.startswith(magic)), "")


_FILL = re.compile(rb"\xff*")
_IN_SCAN = re.compile(rb"\xff[^\x00\xff\xd0-\xd7]")  # what ends entropy-coded data
_ALONE = frozenset({0x00, 0x01, *range(0xD0, 0xD8)})  # a stuffed byte, TEM, RST0..7: no length follows
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # all frame headers but DHT, JPG, DAC


def _jpeg(data: bytes) -> Header:
    """Walk the markers as libjpeg does: whatever is no marker is skipped, and so are markers that stand alone."""
    width = height = 0
    position = 2
    for _ in range(MAX_MARKERS):
        found = data.find(b"\xff", position)
        code_at = _FILL.match(data, found).end() if found >= 0 else len(data)  # type: ignore[union-attr]
        if code_at >= len(data):
            raise HeaderError("cut off") if width else NoSizeError()
        code = data[code_at]
        position = code_at + 1
        if code in _ALONE:
            continue
        if code in (0xD8, 0xD9):
            raise HeaderError("a start or end where none belongs")
        length = _length(data, position)
        if code in _SOF:
            frame = data[position + 2 : position + length]
            if width:
                raise HeaderError("more than one frame header")
            if len(frame) < 6:
                raise NoSizeError if position + length > len(data) else HeaderError("a frame header is damaged")
            height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
        position += length
        if code == 0xDA:
            return Header("JPEG", width, height, *_end_of_scans(data, position))
    raise HeaderError(f"more than {MAX_MARKERS} markers")


def _length(data: bytes, position: int) -> int:
    length = int.from_bytes(data[position : position + 2], "big")
    if length < 2:
        raise NoSizeError if position + 2 > len(data) else HeaderError("a marker is damaged")
    return length


def _end_of_scans(data: bytes, position: int) -> tuple[int, int]:
    """Where the end marker stands, and the number of scans before it."""
    scans = 1
    while (marker := _IN_SCAN.search(data, position)) is not None:
        code, position = data[marker.end() - 1], marker.end()
        if code == 0xD9:
            return marker.start(), scans
        if code == 0x01:
            continue
        scans += code == 0xDA
        if scans > MAX_SCANS:
            raise HeaderError(f"more than {MAX_SCANS} scans")
        position += _length(data, position)
    raise HeaderError("cut off: it has no end")


def _png(data: bytes) -> Header:
    if data[12:16] != b"IHDR" or len(data) < 33:
        raise NoSizeError
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    position = 8
    for number in range(MAX_CHUNKS):
        length, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        body, position = position + 8, position + 12 + length
        if position > len(data):
            raise HeaderError("cut off: it has no end")
        if kind == b"IEND":
            return Header("PNG", width, height)
        if kind == b"IHDR" and number:
            raise HeaderError("more than one header")
        if kind == b"fcTL":  # a frame of an animation
            width = max(width, int.from_bytes(data[body + 4 : body + 8], "big"))
            height = max(height, int.from_bytes(data[body + 8 : body + 12], "big"))
    raise HeaderError(f"more than {MAX_CHUNKS} chunks")


def _bmp(data: bytes) -> Header:
    if int.from_bytes(data[14:18], "little") == 12:  # of OS/2
        return Header("BMP", int.from_bytes(data[18:20], "little"), int.from_bytes(data[20:22], "little"))
    width = int.from_bytes(data[18:22], "little", signed=True)
    height = int.from_bytes(data[22:26], "little", signed=True)  # below zero where rows come from the top
    return Header("BMP", abs(width), abs(height))


def _webp(data: bytes) -> Header:
    if int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise HeaderError("cut off: it has no end")
    width = height = 0
    position = 12
    for _ in range(MAX_MARKERS):
        kind, length = data[position : position + 4], int.from_bytes(data[position + 4 : position + 8], "little")
        body = data[position + 8 : position + 24]
        if len(kind) < 4:
            break
        if kind == b"VP8X":
            size = int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
        elif kind == b"VP8 ":
            size = int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
        elif kind == b"VP8L":
            bits = int.from_bytes(body[1:5], "little")
            size = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif kind == b"ANMF":
            size = int.from_bytes(body[6:9], "little") + 1, int.from_bytes(body[9:12], "little") + 1
        else:
            size = (0, 0)
        width, height = max(width, size[0]), max(height, size[1])
        position += 8 + length + length % 2
    else:
        raise HeaderError(f"more than {MAX_MARKERS} chunks")
    if not width:
        raise NoSizeError
    return Header("WebP", width, height)
