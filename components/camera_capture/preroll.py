"""The last seconds of a stream as it came: encoded packets, in memory, from which clips and pictures are made.

Cameras lie about times: packets have none, those of 1970, or such that run back or jump. So each stream gets times of
ours, which always rise: its own where they make sense, else those of its arrival.
"""

import io
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from edgeml.errors import SourceError

if TYPE_CHECKING:
    import av

    Tap = Callable[[av.Packet[Any]], None]

TICKS = 90_000  # a second
MAX_STEP = 10 * TICKS  # between two packets of a stream, and how far its times may be ahead of the clock
MAX_REORDERED = 5 * TICKS  # that a frame is shown later than it is decoded
RELAX = 5000  # ticks for one by which a camera's clock may be slower than ours (200 ppm)
AROUND_NS = 200_000_000  # after a moment, within which a frame may be the one that is nearest to it
GONE_NS = 2_000_000_000  # after which a stream that is silent is one that is away
OVERHEAD = 300  # bytes that a packet takes beside its data
ADTS = 0xFFF0  # how packets of AAC begin that have a header of their own (ISO/IEC 13818-7, 6.2)


@dataclass(eq=False)
class Track:
    """One stream of one connection. `template` is for muxers, and outlives the connection."""

    kind: str  # "video" or "audio"
    codec: str
    template: Any
    _holder: Any
    shift: int | None = None  # from its own times to ours
    _last: int = 0
    _came: int = 0
    _late: int | None = None  # from when a frame is shown, by our times, to when it was captured

    @classmethod
    def of(cls, stream: Any) -> "Track":
        import av

        holder = av.open(io.BytesIO(), "w", format="nut")  # which holds whatever there is; nothing is ever written
        template = holder.add_stream_from_template(stream, opaque=True)
        return cls(stream.type, stream.codec_context.codec.canonical_name, template, holder)

    def times(self, packet: "av.Packet[Any]", now: int) -> tuple[int, int]:
        """(pts, dts) in ticks, that of the first packet being `now`."""
        base = packet.time_base or Fraction(1, TICKS)
        own = packet.dts if packet.dts is not None else packet.pts
        ticks = now if own is None else round(own * base * TICKS)
        if self.shift is None:
            self.shift = now - ticks
        dts = ticks + self.shift
        follows = not self._came or self._last < dts < self._last + MAX_STEP
        if not follows or abs(dts - now) > MAX_STEP:
            dts = max(self._last + 1, now)
            self.shift = dts - ticks
        later = 0
        if packet.pts is not None and packet.dts is not None:
            later = round((packet.pts - packet.dts) * base * TICKS)
        pts = dts + (later if 0 <= later <= MAX_REORDERED else 0)
        late = now - pts
        self._late = late if self._late is None else min(late, self._late + (now - self._came) // RELAX)
        self._last, self._came = dts, now
        return pts, dts

    def captured_ns(self, pts: int) -> int:
        """When a frame was captured, on the monotonic clock: as early as any packet so far says."""
        return (pts + (self._late or 0)) * 1_000_000_000 // TICKS

    def unwrapped(self, data: bytes) -> bytes:
        """Without a header of its own, which MP4 does not take; what it says is told to muxers."""
        if self.codec != "aac" or len(data) < 9 or int.from_bytes(data[:2]) & 0xFFF6 != ADTS:
            return data
        profile, rate, channels = data[2] >> 6, data[2] >> 2 & 15, (data[2] & 1) << 2 | data[3] >> 6
        if not self.template.codec_context.extradata:
            self.template.codec_context.extradata = (profile + 1 << 11 | rate << 7 | channels << 3).to_bytes(2)
        return data[7 if data[1] & 1 else 9 :]


@dataclass(frozen=True, eq=False, slots=True)
class Unit:
    """A packet. `pts` and `dts` in ticks; `number` rises by one from each to the next."""

    track: Track
    number: int
    data: bytes
    pts: int
    dts: int
    duration: int
    is_key: bool

    @property
    def begins(self) -> bool:
        """Whether decoding can begin with it."""
        return self.is_key and self.track.kind == "video"

    @property
    def captured_ns(self) -> int:
        return self.track.captured_ns(self.pts)


@dataclass(eq=False)
class _Connection:
    """What came since a source was opened: one stream of video, and one of audio."""

    tracks: dict[int, Track | None] = field(default_factory=dict)

    def track(self, stream: Any) -> Track | None:
        if stream.index not in self.tracks:
            is_known = any(track is not None and track.kind == stream.type for track in self.tracks.values())
            is_wanted = stream.type in ("video", "audio") and not is_known and stream.codec_context is not None
            self.tracks[stream.index] = track = Track.of(stream) if is_wanted else None
            if track is not None:  # sound belongs to its picture
                track.shift = next((one.shift for one in self.tracks.values() if one and one.shift is not None), None)
        return self.tracks[stream.index]


class Preroll:
    """Keeps packets of the last `seconds`, at most `max_bytes`, and beginning with a keyframe.

    One thread puts, any may take. What comes from another connection follows on from nothing: what was is forgotten.
    """

    def __init__(self, seconds: float, max_bytes: int) -> None:
        self._seconds, self._max_bytes = seconds, max_bytes
        self._changed = threading.Condition()
        self._units: deque[Unit] = deque()
        self._keys: deque[int] = deque()  # numbers of those with which decoding can begin
        self._bytes = self._number = self._first = 0
        self._connection: _Connection | None = None

    @property
    def codec(self) -> str:
        """Of the video that is kept; empty while there is none."""
        with self._changed:
            return self._units[0].track.codec if self._units else ""

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return self._bytes

    def tap(self) -> "Tap":
        """For a source that is opened: takes its packets, until there is another one."""
        connection = _Connection()
        with self._changed:
            self._begin(connection)
        return lambda packet: self._put(connection, packet)

    def close(self) -> None:
        """The connection is over; nothing more comes."""
        with self._changed:
            self._begin(None)

    def _begin(self, connection: _Connection | None) -> None:
        self._connection = connection
        self._units.clear()
        self._keys.clear()
        self._bytes, self._first = 0, self._number
        self._changed.notify_all()

    def _put(self, connection: _Connection, packet: "av.Packet[Any]") -> None:
        if not packet.size:
            return
        now = time.monotonic_ns() * TICKS // 1_000_000_000
        with self._changed:
            track = connection.track(packet.stream) if connection is self._connection else None
            if track is None:
                return
            pts, dts = track.times(packet, now)
            base = packet.time_base or Fraction(1, TICKS)
            duration = max(0, min(round((packet.duration or 0) * base * TICKS), MAX_STEP))
            data = track.unwrapped(bytes(packet))
            unit = Unit(track, self._number, data, pts, dts, duration, bool(packet.is_keyframe))
            if not self._units and not unit.begins:
                return
            self._number += 1
            self._units.append(unit)
            self._bytes += len(unit.data) + OVERHEAD
            if unit.begins:
                self._keys.append(unit.number)
            self._forget(dts)
            self._changed.notify_all()

    def _forget(self, now: int) -> None:
        """Drop what is too old or too much, up to a keyframe. Where even that is too much nothing is left."""
        while self._units:
            is_old = len(self._keys) > 1 and self._at(self._keys[1]).dts <= now - self._seconds * TICKS
            if not is_old and self._bytes <= self._max_bytes:
                return
            self._keys.popleft()
            until = self._keys[0] if self._keys else self._number
            while self._units and self._units[0].number < until:
                self._bytes -= len(self._units.popleft().data) + OVERHEAD

    def _at(self, number: int) -> Unit:
        return self._units[number - self._units[0].number]

    def since(self, captured_ns: int) -> list[Unit]:
        """What is there from the last keyframe on that was captured by then, or from the first one.

        Nothing, if all of it is much older.
        """
        with self._changed:
            if not self._units or self._units[-1].captured_ns < captured_ns - GONE_NS:
                return []
            begin = next(
                (n for n in reversed(self._keys) if self._at(n).captured_ns <= captured_ns),
                self._keys[0],
            )
            return [unit for unit in self._units if unit.number >= begin]

    def after(self, number: int, timeout_s: float) -> list[Unit] | None:
        """What came after the unit of that number, empty if nothing did in time; None when its connection is over.

        Raises SourceError if some of it is forgotten already.
        """
        with self._changed:
            self._changed.wait_for(lambda: number < self._first or self._number > number + 1, timeout_s)
            if number < self._first:
                return None
            if self._number > number + 1 and (not self._units or self._units[0].number > number + 1):
                raise SourceError("packets come faster than they can be written: is the disk too slow?")
            ahead = len(self._units) - (self._number - number - 1)
            return [self._units[index] for index in range(max(0, ahead), len(self._units))]

    def around(self, captured_ns: int) -> list[Unit]:
        """Video from a keyframe on to what shows that moment, and a little more."""
        until = captured_ns + AROUND_NS
        units = [unit for unit in self.since(captured_ns) if unit.track.kind == "video"]
        return [unit for unit in units if unit.track.captured_ns(unit.dts) <= until]
