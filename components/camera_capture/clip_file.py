"""Videos of H.264 in MP4, which browsers play: packets as they came, or pictures that are encoded.

Files are made of fragments: what is written plays, even where nobody could end it.
"""

import io
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camera_capture.packets import MAX_PIXELS
from camera_capture.preroll import TICKS, Track, Unit
from edgeml.errors import EdgemlError, SourceError

if TYPE_CHECKING:
    import av

    from camera_capture.source import Image

SUFFIX, CONTENT_TYPE = ".mp4", "video/mp4"
WRITE_S = 300.0  # after so long an encoded clip ends with what has been written of it
COPIED = ("h264", "hevc", "av1", "vp9")  # video that is taken as it is
SOUND = ("aac", "mp3", "opus", "flac")
BASE = Fraction(1, TICKS)
LAST = TICKS // 25  # of the last picture, whose end nobody knows
_LEFT = 1 << 20  # bytes of a file for what is no picture
_FRAGMENT_US = "1000000"
MUXER = {
    "movflags": "frag_keyframe+empty_moov+default_base_moof",
    "frag_duration": _FRAGMENT_US,
    "max_interleave_delta": _FRAGMENT_US,  # where one stream is silent the other one does not wait longer
    "flush_packets": "1",
}
_X264 = {"preset": "veryfast", "tune": "zerolatency", "crf": "26", "maxrate": "4M", "bufsize": "8M", "threads": "1"}


def holds(track: Track) -> bool:
    """Whether a copy can have it: one stream that the muxer refuses, as MP3 at 8 kHz, would cost the whole clip."""
    import av

    if track.codec not in COPIED and track.codec not in SOUND:
        return False
    with suppress(SourceError), translated("clip"), av.open(io.BytesIO(), "w", format="mp4", options=MUXER) as muxer:
        muxer.add_stream_from_template(track.template, opaque=True)
        muxer.start_encoding()
        return True
    return False


def copied(path: Path, tracks: Iterable[Track], units: Iterable[Unit], max_bytes: int) -> float:
    """Write packets as they come, beginning with a keyframe; the seconds that they cover, fewer for `max_bytes`.

    Raises SourceError if they cannot be written.
    """
    size, first, end = 0, None, 0
    with _muxer(path) as muxer:
        streams = {track: muxer.add_stream_from_template(track.template, opaque=True) for track in tracks}
        for unit in units:
            first = unit.dts if first is None else first
            size += unit.size
            if size > max_bytes - _LEFT:
                break
            if unit.track in streams and unit.dts >= first:
                with unit.track.lock:
                    muxer.mux_one(_packet(unit, first, streams[unit.track]))
                end = max(end, unit.pts + (unit.duration or LAST) - first)
    return end / TICKS


def encoded(path: Path, pictures: Iterable[tuple[int, "Image"]], fps: float, max_side: int, max_bytes: int) -> float:
    """Write pictures, with when they were captured (ns), as H.264; as `copied`. Sides become even."""
    stream, written, before, until = None, 0, -1, time.monotonic() + WRITE_S
    with _muxer(path) as muxer:
        for captured_ns, image in pictures:
            if stream is None:
                stream, first = _h264(muxer, image, fps, max_side), captured_ns
            at = (captured_ns - first) * TICKS // 1_000_000_000
            if at <= before:
                continue
            if written > max_bytes - _LEFT or time.monotonic() > until:
                break
            for packet in stream.encode(_frame(image, at, stream)):
                written += packet.size
                muxer.mux_one(packet)
            before = at
        if stream is None:
            raise SourceError("no picture of that time can be decoded")
        for packet in stream.encode(None):
            muxer.mux_one(packet)
    return (before + TICKS / fps) / TICKS


def decoded(units: Iterable[Unit]) -> Iterator[tuple[int, "av.VideoFrame"]]:
    """Frames of packets that begin with a keyframe, with when they were captured (ns), as they are shown.

    Raises SourceError if they cannot be decoded; single broken ones are passed over.
    """
    import av

    context: Any = None
    with translated("clip"):
        for unit in [*units, None]:
            if context is None:
                if unit is None:
                    return
                track = unit.track
                context = track.decoder()
                context.options = {"max_pixels": str(MAX_PIXELS)}
            frames = []
            with suppress(av.error.InvalidDataError), track.lock:
                frames = context.decode(None if unit is None else _packet(unit, 0))
            for frame in frames:
                if frame.pts is not None:
                    yield track.captured_ns(frame.pts), frame
            frames = []


def bgr(frame: "av.VideoFrame") -> "Image":
    """Its pixels, upright. Raises SourceError."""
    import numpy as np

    with translated("clip"):
        image: Image = frame.to_ndarray(format="bgr24")  # type: ignore[assignment]
        return np.ascontiguousarray(np.rot90(image, round(frame.rotation / 90) % 4))


def mended(path: Path) -> bool:
    """Cut off what follows the last whole fragment; whether there is one. Raises OSError."""
    whole, end, size = 0, 0, path.stat().st_size
    with path.open("r+b") as file:
        while len(head := file.read(8)) == 8 and (length := int.from_bytes(head[:4], "big")) >= 8:
            end += length
            if end > size:
                break
            if head[4:] == b"mdat":
                whole = end
            file.seek(end)
        file.truncate(whole)
        os.fsync(file.fileno())
    return whole > 0


@contextmanager
def translated(what: str) -> Iterator[None]:
    """What FFmpeg and the system raise, as SourceError."""
    import av

    try:
        yield
    except EdgemlError:
        raise
    except (av.error.FFmpegError, OSError, ValueError, MemoryError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise SourceError(f"{what}: {reason}") from error


@contextmanager
def _muxer(path: Path) -> Iterator[Any]:
    """An MP4 muxer whose file is whole, and on the disk, at the end."""
    import av

    with translated(f"clip {path}"):
        muxer = av.open(f"file:{path}", "w", format="mp4", options=MUXER)
        try:
            yield muxer
        except BaseException:
            with suppress(Exception):  # what is wrong is known
                muxer.close()
            raise
        muxer.close()
        with path.open("rb") as file:
            os.fsync(file.fileno())


def _packet(unit: Unit, first: int, stream: Any = None) -> Any:
    """The unit's packet with its times since `first`, for a muxer's stream or a decoder. The track's lock is held."""
    packet: Any = unit.packet
    packet.time_base = BASE
    packet.pts, packet.dts, packet.duration = unit.pts - first, unit.dts - first, unit.duration
    if stream is not None:
        packet.stream = stream
    return packet


def _h264(muxer: Any, image: "Image", fps: float, max_side: int) -> Any:
    height, width = image.shape[:2]
    scale = min(1.0, max_side / max(width, height))
    stream = muxer.add_stream("libx264", rate=Fraction(fps).limit_denominator(1000), options=_X264)
    stream.width, stream.height = (max(2, round(side * scale) // 2 * 2) for side in (width, height))
    stream.pix_fmt, stream.time_base = "yuv420p", BASE
    stream.codec_context.time_base = BASE
    stream.codec_context.gop_size = max(1, round(2 * fps))
    return stream


def _frame(image: "Image", at: int, stream: Any) -> Any:
    import av

    frame = av.VideoFrame.from_ndarray(image, format="bgr24" if image.ndim == 3 else "gray8")
    frame = frame.reformat(stream.width, stream.height, "yuv420p")
    frame.pts, frame.time_base = at, BASE
    return frame
