"""Sizes of frames in files whose size changes midway: OpenCV squashes them all into the first one's.

The packets are read beside the decoder, and sizes taken from key frames. Sources: RFC 6386 9.1 (VP8), VP9 bitstream
specification 6.2, ITU-T T.81 (MJPEG), ITU-T H.264 7.3.2.1.1. Other codecs are left as they are.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgeml import _picture_header

Size = tuple[int, int]
MAX_SIDE = 16384


class FileSizes:
    """Of one file, for ascending positions in seconds."""

    def __init__(self, path: Path, capture: Any) -> None:
        """`capture` decodes the same file."""
        import cv2

        self._cv2 = cv2
        self._shown = (int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)))
        self._first: Size | None = None
        self._now: Size | None = None
        self._known: list[tuple[float, Size]] = []
        self._read_to = -1.0
        fourcc = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
        self._codec = fourcc.to_bytes(4, "little").lower()
        self._packets: Any = None
        if self._codec in _CODECS:
            self._packets = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
            if not (self._packets.isOpened() and self._packets.set(cv2.CAP_PROP_FORMAT, -1)):
                self.close()

    def at(self, position: float) -> Size | None:
        """The (width, height) that the frame at `position` should have; None where nothing is known against it."""
        while self._packets is not None and self._read_to <= position:
            self._read()
        while self._known and self._known[0][0] <= position:
            self._now = self._known.pop(0)[1]
        if self._first is None or self._now is None or self._now == self._first:
            return None
        # What the container says may differ from what the codec says: the change is what counts.
        width, height = (round(n * s / f) for n, s, f in zip(self._now, self._shown, self._first, strict=True))
        return (max(1, width), max(1, height))

    def _read(self) -> None:
        """The next packet. Key frames come in the order of their times."""
        cv2 = self._cv2
        if not self._packets.grab():
            self.close()
            return
        position = self._packets.get(cv2.CAP_PROP_POS_MSEC) / 1000
        if math.isfinite(position):
            self._read_to = position
        if not self._packets.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME):
            return
        ok, data = self._packets.retrieve()
        size = size_in(self._codec, data.tobytes()) if ok and data is not None else None
        if size is not None:
            self._first = self._first or size
            self._known.append((self._read_to, size))

    def close(self) -> None:
        packets, self._packets = self._packets, None
        self._read_to = math.inf
        if packets is not None:
            packets.release()


def size_in(codec: bytes, packet: bytes) -> Size | None:
    """Of the frame in a packet of a codec, by its four letters; None where the packet says nothing sane."""
    try:
        size = _CODECS[codec](packet)
    except (IndexError, ValueError, StopIteration):  # a damaged packet, which the decoder may still make something of
        return None
    return size if size is not None and all(0 < side <= MAX_SIDE for side in size) else None


def _vp8(data: bytes) -> Size | None:
    if data[3:6] != b"\x9d\x01\x2a" or len(data) < 10:
        return None
    return int.from_bytes(data[6:8], "little") & 0x3FFF, int.from_bytes(data[8:10], "little") & 0x3FFF


def _vp9(data: bytes) -> Size | None:
    """Profile 0, which is what the web uses."""
    if data[1:4] != b"\x49\x83\x42" or data[0] & 0b11110100 != 0b10000000 or data[4] >> 5 == 7:
        return None
    bits = int.from_bytes(data[4:9], "big")  # 3 of colour space, 1 of range, then 16 and 16
    return (bits >> 20 & 0xFFFF) + 1, (bits >> 4 & 0xFFFF) + 1


def _mjpeg(data: bytes) -> Size | None:
    header = _picture_header.read(data)
    return (header.width, header.height) if header is not None else None


def _h264(data: bytes) -> Size | None:
    """From the first sequence parameter set of an Annex B packet."""
    at = data.find(b"\x00\x00\x01")
    while at >= 0 and data[at + 3] & 0x1F != 7:
        at = data.find(b"\x00\x00\x01", at + 3)
    return _sps(data[at + 4 : at + 260].replace(b"\x00\x00\x03", b"\x00\x00")) if at >= 0 else None


def _sps(data: bytes) -> Size:
    bits = _Bits(data)
    profile = bits.take(8)
    bits.take(16)
    bits.ue()
    chroma = 1
    if profile in (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135):
        chroma = bits.ue()
        if chroma == 3:
            bits.take(1)
        bits.ue(2)
        bits.take(1)
        if bits.take(1):
            for index in range(12 if chroma == 3 else 8):
                if bits.take(1):
                    _skip_scaling(bits, 16 if index < 6 else 64)
    bits.ue()
    order = bits.ue()
    if order == 0:
        bits.ue()
    elif order == 1:
        bits.take(1)
        bits.ue(2)
        bits.ue(min(bits.ue(), 255))
    bits.ue()
    bits.take(1)
    width, height = (bits.ue() + 1) * 16, (bits.ue() + 1) * 16
    progressive = bits.take(1)
    bits.take(1 if progressive else 2)
    step_x = 2 if chroma in (1, 2) else 1
    step_y = (2 if chroma == 1 else 1) * (2 - progressive)
    left, right, top, bottom = [bits.ue() for _ in range(4)] if bits.take(1) else [0] * 4
    return width - step_x * (left + right), height * (2 - progressive) - step_y * (top + bottom)


def _skip_scaling(bits: "_Bits", count: int) -> None:
    last = following = 8
    for _ in range(count):
        if following:
            code = bits.ue()
            delta = (code + 1) // 2 if code % 2 else -(code // 2)
            following = (last + delta) % 256
        last = following or last


class _Bits:
    """Reads bits and Exp-Golomb codes. Raises StopIteration at the end."""

    def __init__(self, data: bytes) -> None:
        self._bits: Iterator[int] = iter([byte >> shift & 1 for byte in data for shift in range(7, -1, -1)])

    def take(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | next(self._bits)
        return value

    def ue(self, count: int = 1) -> int:
        """The last of `count` unsigned codes."""
        value = 0
        for _ in range(count):
            zeros = 0
            while not next(self._bits):
                zeros += 1
            value = (1 << zeros) - 1 + self.take(zeros)
        return value


_CODECS: dict[bytes, Callable[[bytes], Size | None]] = {
    b"vp80": _vp8, b"vp90": _vp9, b"vp09": _vp9, b"mjpg": _mjpeg, b"jpeg": _mjpeg, b"h264": _h264, b"avc1": _h264,
}  # fmt: skip
