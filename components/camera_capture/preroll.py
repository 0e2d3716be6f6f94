"""The last seconds of a stream as it came: encoded packets, in memory, from which clips and pictures are made.

Cameras lie about times: packets have none, those of 1970, or such that run back or jump. So each stream gets times of
ours, which always rise: its own where they make sense, else those of its arrival.
"""

import io
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml.errors import SourceError
from edgeml.log import kv

if TYPE_CHECKING:
    import av

    Tap = Callable[[av.Packet[Any]], None]

log = logging.getLogger(__name__)

TICKS = 90_000  # a second
MIN_STEP = TICKS // 1000  # what is less may be nothing in the time base of a muxer
MAX_STEP = 10 * TICKS  # between two packets of a stream, and how far its times may be ahead of the clock
MAX_REORDERED = 5 * TICKS  # that a frame is shown later than it is decoded
RELAX = 5000  # ticks for one by which a camera's clock may be slower than ours (200 ppm)
AROUND_NS = 200_000_000  # after a moment, within which a frame may be the one that is nearest to it
TAIL = TICKS  # of a connection that is over
GONE_NS = 2_000_000_000  # after which a stream that is silent is one that is away
OVERHEAD = 500  # bytes that a packet takes beside its data
ADTS = 0xFFF0  # how packets of AAC begin that have a header of their own (ISO/IEC 13818-7, 6.2)
MAX_ADTS = 9  # bytes


@dataclass(eq=False)
class Track:
    """One stream of one connection. `template` is for muxers, and outlives the connection."""

    kind: str  # "video" or "audio"
    codec: str
    template: Any
    _holder: Any
    _multiplied: int = 1  # a time of the stream, and divided, is one of ours
    _divided: int = 1
    lock: threading.Lock = field(default_factory=threading.Lock)
    shift: int | None = None  # from its own times to ours
    _last: int = 0
    _came: int = 0
    _late: int | None = None  # from when a frame is shown, by our times, to when it was captured

    @classmethod
    def of(cls, stream: Any) -> "Track":
        import av

        holder = av.open(io.BytesIO(), "w", format="mpegts")  # which holds most; nothing is ever written
        template = holder.add_stream_from_template(stream, opaque=True)
        base = stream.time_base or Fraction(1, TICKS)
        codec = stream.codec_context.codec.canonical_name
        return cls(stream.type, codec, template, holder, base.numerator * TICKS, base.denominator)

    def decoder(self) -> Any:
        """One of its own for whoever asks, which knows whether the picture is turned."""
        import av

        holder = av.open(io.BytesIO(), "w", format="mpegts")
        return holder.add_stream_from_template(self.template, opaque=True).codec_context

    def ticks(self, own: int) -> int:
        """A time of the stream in ticks."""
        return own * self._multiplied // self._divided

    def times(self, shown: int | None, decoded: int | None, now: int) -> tuple[int, int]:
        """(pts, dts) in ticks, that of the first packet being `now`, of those that a packet says itself."""
        own = decoded if decoded is not None else shown
        ticks = now if own is None else self.ticks(own)
        if self.shift is None:
            self.shift = now - ticks
        dts = ticks + self.shift
        follows = not self._came or self._last + MIN_STEP <= dts < self._last + MAX_STEP
        if not follows or abs(dts - now) > MAX_STEP:
            dts = max(self._last + MIN_STEP, now)
            self.shift = dts - ticks
        pts = dts
        if shown is not None and shown != own and 0 <= (later := self.ticks(shown - own)) <= MAX_REORDERED:  # type: ignore[operator]
            pts += later
        late = now - pts
        self._late = late if self._late is None else min(late, self._late + (now - self._came) // RELAX)
        self._last, self._came = dts, now
        return pts, dts

    def captured_ns(self, pts: int) -> int:
        """When a frame was captured, on the monotonic clock: as early as any packet so far says."""
        return (pts + (self._late or 0)) * 1_000_000_000 // TICKS

    def unwrapped(self, packet: "av.Packet[Any]") -> "av.Packet[Any]":
        """AAC without a header of its own, which MP4 does not take; what it says is told to muxers."""
        import av

        data = bytes(packet)
        if len(data) <= MAX_ADTS or int.from_bytes(data[:2], "big") & 0xFFF6 != ADTS:
            return packet
        profile, rate, channels = data[2] >> 6, data[2] >> 2 & 15, (data[2] & 1) << 2 | data[3] >> 6
        if not self.template.codec_context.extradata:
            self.template.codec_context.extradata = (profile + 1 << 11 | rate << 7 | channels << 3).to_bytes(2, "big")
        bare: av.Packet[Any] = av.Packet(data[7 if data[1] & 1 else MAX_ADTS :])
        bare.is_keyframe = True
        return bare


class Unit(NamedTuple):
    """A packet. `number` rises by one from each to the next; times are in ticks; decoding can begin with what `begins`.

    FFmpeg's packet is not copied, and has one user at a time, who holds its track's `lock`: times in it are anybody's.
    """

    track: Track
    number: int
    packet: "av.Packet[Any]"
    size: int
    pts: int
    dts: int
    duration: int
    begins: bool

    @property
    def captured_ns(self) -> int:
        return self.track.captured_ns(self.pts)


@dataclass(eq=False)
class _Connection:
    """What came since a source was opened: one stream of video, and one of audio."""

    tracks: dict[int, Track | None] = field(default_factory=dict)

    def track(self, packet: Any) -> Track | None:
        if packet.stream_index not in self.tracks:
            stream = packet.stream
            is_known = any(track is not None and track.kind == stream.type for track in self.tracks.values())
            is_wanted = stream.type in ("video", "audio") and not is_known and stream.codec_context is not None
            self.tracks[packet.stream_index] = track = _track(stream) if is_wanted else None
            if track is not None:  # sound belongs to its picture
                track.shift = next((one.shift for one in self.tracks.values() if one and one.shift is not None), None)
        return self.tracks[packet.stream_index]


def _track(stream: Any) -> Track | None:
    """None for a stream that no muxer takes: it is left out, and the camera goes on."""
    import av

    try:
        return Track.of(stream)
    except (av.error.FFmpegError, ValueError, MemoryError) as error:
        log.warning("a stream is in no clip %s", kv(type=stream.type, error=error))
        return None


class Preroll:
    """Keeps packets of the last `seconds`, at most `max_bytes`, and beginning with a keyframe.

    One thread puts, any may take. What comes from another connection follows on from nothing: what was is forgotten.
    """

    def __init__(self, seconds: float, max_bytes: int) -> None:
        self._seconds, self._max_bytes = seconds, max_bytes
        self._lock = threading.Lock()
        self._units: deque[Unit] = deque()
        self._tail: list[Unit] = []  # of the connection before, for clips that have not seen it yet
        self._keys: deque[int] = deque()  # numbers of those with which decoding can begin
        self._bytes = self._number = self._first = 0
        self._connection: _Connection | None = None

    @property
    def codec(self) -> str:
        """Of the video that is kept; empty while there is none."""
        with self._lock:
            return self._units[0].track.codec if self._units else ""

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return self._bytes

    def tap(self) -> "Tap":
        """For a source that is opened: takes its packets, until there is another one."""
        connection = _Connection()
        with self._lock:
            self._begin(connection)
        return lambda packet: self._put(connection, packet)

    def close(self) -> None:
        """The connection is over; nothing more comes."""
        with self._lock:
            self._begin(None)

    def _begin(self, connection: _Connection | None) -> None:
        self._connection = connection
        if self._units:
            last = self._units[-1].dts
            self._tail = [unit for unit in self._units if unit.dts > last - TAIL]
        self._units.clear()
        self._keys.clear()
        self._bytes, self._first = 0, self._number

    def _put(self, connection: _Connection, packet: "av.Packet[Any]") -> None:
        if not packet.size:
            return
        now = time.monotonic_ns() * TICKS // 1_000_000_000
        with self._lock:
            track = connection.track(packet) if connection is self._connection else None
            if track is None:
                return
            pts, dts = track.times(packet.pts, packet.dts, now)
            begins = packet.is_keyframe and track.kind == "video"
            if not self._units and not begins:
                return
            duration = track.ticks(packet.duration or 0)
            duration = duration if 0 <= duration <= MAX_STEP else 0
            if track.codec == "aac":
                packet = track.unwrapped(packet)
            if begins:
                self._tail = []
                self._keys.append(self._number)
            self._units.append(Unit(track, self._number, packet, packet.size, pts, dts, duration, begins))
            self._number += 1
            self._bytes += packet.size + OVERHEAD
            if begins or self._bytes > self._max_bytes:
                self._forget(dts)

    def _forget(self, now: int) -> None:
        """Drop what is too old or too much, up to a keyframe. Where even that is too much nothing is left."""
        while self._units:
            is_old = len(self._keys) > 1 and self._at(self._keys[1]).dts <= now - self._seconds * TICKS
            if not is_old and self._bytes <= self._max_bytes:
                return
            self._keys.popleft()
            until = self._keys[0] if self._keys else self._number
            while self._units and self._units[0].number < until:
                self._bytes -= self._units.popleft().size + OVERHEAD

    def _at(self, number: int) -> Unit:
        return self._units[number - self._units[0].number]

    def since(self, captured_ns: int) -> list[Unit]:
        """What is there from the last keyframe on that was captured by then, or from the first one.

        Nothing, if all of it is much older.
        """
        with self._lock:
            if not self._units or self._units[-1].captured_ns < captured_ns - GONE_NS:
                return []
            begin = next(
                (n for n in reversed(self._keys) if self._at(n).captured_ns <= captured_ns),
                self._keys[0],
            )
            return [unit for unit in self._units if unit.number >= begin]

    def after(self, number: int) -> list[Unit] | None:
        """What came after the unit of that number; None when its connection is over.

        Raises SourceError if some of it is forgotten already.
        """
        with self._lock:
            if number < self._first:
                is_whole = self._tail and self._tail[0].number <= number < self._tail[-1].number
                return [unit for unit in self._tail if unit.number > number] if is_whole else None
            if self._number > number + 1 and (not self._units or self._units[0].number > number + 1):
                raise SourceError("packets come faster than they can be written: is the disk too slow?")
            ahead = len(self._units) - (self._number - number - 1)
            return [self._units[index] for index in range(max(0, ahead), len(self._units))]

    def around(self, captured_ns: int) -> list[Unit]:
        """Video from a keyframe on to what shows that moment, and a little more."""
        until = captured_ns + AROUND_NS
        units = [unit for unit in self.since(captured_ns) if unit.track.kind == "video"]
        return [unit for unit in units if unit.track.captured_ns(unit.dts) <= until]
