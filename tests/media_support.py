"""Video files: those with irregular times or sizes are made by hand, the others encoded."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray


def vp8(picture: NDArray[np.uint8]) -> bytes:
    """A key frame of VP8: what a lossy WebP holds."""
    data = cv2.imencode(".webp", picture, [cv2.IMWRITE_WEBP_QUALITY, 80])[1]
    riff = data.tobytes()
    assert riff[12:16] == b"VP8 "
    return riff[20 : 20 + int.from_bytes(riff[16:20], "little")]


def webm(path: Path, frames: Iterable[tuple[int, bytes]], *, duration_ns: int = 0) -> Path:
    """A WebM file of (milliseconds, VP8 frame) pairs. `duration_ns` of a frame is what the file claims, if anything."""
    doctype = _number(b"\x42\x86", 1) + _number(b"\x42\xf7", 1) + _number(b"\x42\xf2", 4) + _number(b"\x42\xf3", 8)
    doctype += _element(b"\x42\x82", b"webm") + _number(b"\x42\x87", 2) + _number(b"\x42\x85", 2)
    info = _number(b"\x2a\xd7\xb1", 1_000_000) + _element(b"\x4d\x80", b"x") + _element(b"\x57\x41", b"x")
    track = _number(b"\xd7", 1) + _number(b"\x73\xc5", 1) + _number(b"\x83", 1) + _element(b"\x86", b"V_VP8")
    track += _number(b"\x23\xe3\x83", duration_ns) if duration_ns else b""
    track += _element(b"\xe0", _number(b"\xb0", 80) + _number(b"\xba", 48))
    clusters = b"".join(
        _element(b"\x1f\x43\xb6\x75", _number(b"\xe7", ms) + _element(b"\xa3", b"\x81\0\0\x80" + frame))
        for ms, frame in frames
    )
    tracks = _element(b"\x16\x54\xae\x6b", _element(b"\xae", track))
    segment = _element(b"\x18\x53\x80\x67", _element(b"\x15\x49\xa9\x66", info) + tracks + clusters)
    path.write_bytes(_element(b"\x1a\x45\xdf\xa3", doctype) + segment)
    return path


def _element(identity: bytes, body: bytes) -> bytes:
    return identity + (1 << 56 | len(body)).to_bytes(8) + body


def _number(identity: bytes, value: int) -> bytes:
    return _element(identity, value.to_bytes(8))


def encoded(
    path: Path,
    codec: str = "libx264",
    *,
    count: int = 10,
    size: tuple[int, int] = (80, 48),
    fps: int = 25,
    every: int = 5,
    between: int = 0,
    options: dict[str, str] | None = None,
) -> Path:
    """Grey frames, each 20 levels lighter than the one before (from 20, up to 240 and again). Every `every`th is a key
    frame; `between` others lie up to so many B-frames. The name's end says the container.
    """
    with av.open(str(path), "w", options=options or {}) as output:
        stream = output.add_stream(codec, fps, options={"g": str(every), "bf": str(between), "threads": "1"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for number in range(count):
            picture = np.full((size[1], size[0], 3), level(number), np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def level(number: int) -> int:
    """Of grey, of the frame with this number in `encoded`."""
    return 20 + number % 12 * 20


def sps(width: int, height: int) -> bytes:
    """A sequence parameter set of H.264, 7.3.2.1.1, of the baseline profile, in an Annex B packet."""

    def ue(value: int) -> str:
        return "0" * ((value + 1).bit_length() - 1) + f"{value + 1:b}"

    bits = f"{66:08b}{0:08b}{62:08b}" + ue(0) + ue(0) + ue(2) + ue(1) + "0"
    bits += ue(width // 16 - 1) + ue(height // 16 - 1) + "11001"
    bits = bits.ljust(-(-len(bits) // 8) * 8, "0")
    return b"\0\0\0\1\x67" + int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\0\0\0", b"\0\0\3\0")
