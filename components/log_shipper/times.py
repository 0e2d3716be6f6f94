"""What a line says about its time, in which zone, and whether CloudWatch would believe it."""

import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone, tzinfo

from edgeml.clock import CLOCK, Clock
from log_shipper.errors import ZoneError

DAY_MS = 86_400_000
EARLIEST_MS = 978_307_200_000  # 2001-01-01: before that is an uptime, or a clock that was never set
TAKEN_DAYS = 14  # so far back CloudWatch takes events, if the group keeps them so long
_AHEAD_MS = 7_200_000  # and so far ahead
_MARGIN_MS = 60_000  # a batch is some time on its way, and its clock is not ours
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MILLISECOND = timedelta(milliseconds=1)
_MAX_MINUTES = 4096
_FOLD_SLACK_MS = 60_000  # threads write a little out of order

ZONE = r"[Zz]|\s?(?:UTC|GMT|Z)\b|\s?[+-]\d\d:?\d\d(?!\d)|[+-]\d\d(?!\d)"
_ZONE = re.compile(ZONE, re.ASCII)
_TIME = re.compile(rf"(\d{{4}}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d{{1,9}})\d*)?({ZONE})?\s*", re.ASCII)
# What Python 3.10's fromisoformat does not know: no seconds before a zone, nothing between the numbers.
_SHORT = re.compile(rf"(\d{{4}})-?(\d\d)-?(\d\d)[T ](\d\d):?(\d\d)(?::?(\d\d))?((?:[.,]\d+)?(?:{ZONE})?\s*)", re.ASCII)
_NUMBER = re.compile(r"\d{1,20}(?:\.\d{0,20})?", re.ASCII)


class Zone:
    """Local time of a place by its IANA name or UTC offset; without a name, of this machine. Not thread-safe."""

    def __init__(self, name: str = "") -> None:
        """Raises ZoneError."""
        self._zone = _zone(name) if name else None
        self.is_utc = self._zone is timezone.utc if name else time.timezone == 0 and not time.daylight
        self._offsets: dict[int, tuple[int, int]] = {}

    def utc_ms(self, wall_ms: int, arrival: int, last: int) -> int:
        """Unix ms of a local time given as if it were UTC; `last` is the time of the line before, 0 if not known.

        In autumn an hour comes twice: what would be earlier than the line before is of the second one, and nothing is
        later than its arrival. In spring one is missing; a time in it is what the clock showed before it was set.
        """
        if self.is_utc:
            return wall_ms
        first, second = self._both_offsets(wall_ms // 60_000)
        once, again = wall_ms - first, wall_ms - second
        if again <= once or again > arrival + _FOLD_SLACK_MS or (last and last - _FOLD_SLACK_MS <= once):
            return once
        return again

    def _both_offsets(self, minute: int) -> tuple[int, int]:
        """What the zone's clock is ahead of UTC, in ms, before and after it is set back or forth."""
        found = self._offsets.get(minute)
        if found is None:
            if len(self._offsets) >= _MAX_MINUTES:
                self._offsets.clear()
            found = self._offsets[minute] = (self._offset(minute, 0), self._offset(minute, 1))
        return found

    def _offset(self, minute: int, fold: int) -> int:
        wall = datetime(1970, 1, 1) + timedelta(minutes=minute)
        try:
            return round(minute * 60_000 - wall.replace(fold=fold, tzinfo=self._zone).timestamp() * 1000)
        except (ValueError, OverflowError, OSError):  # the first and the last year of all
            return 0


def _zone(name: str) -> tzinfo:
    if name.upper() in ("UTC", "GMT", "Z", "ETC/UTC"):
        return timezone.utc
    if name[0] in "+-" and _ZONE.fullmatch(name) and (offset := offset_ms(name)) is not None:
        return timezone(timedelta(milliseconds=offset))
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        has_data = bool(zoneinfo.available_timezones())
        hint = "no such time zone" if has_data else "this machine has no time zones, install tzdata"
        raise ZoneError(f"{name}: {hint}; lines without a zone are taken as of this machine's local time") from error


class Correction:
    """What to add to times that this machine gave before its clock was set. One for all logs.

    The process notes the clock when it begins. If that could not be believed and is corrected later, the times from
    boot to the correction are those of the wrong clock.
    """

    def __init__(self, clock: Clock = CLOCK) -> None:
        self._clock = clock
        self._born = clock.now()
        self.shift = self._from = self._to = 0  # ms

    def look(self) -> None:
        """Notice a correction; asked about once a second."""
        if self.shift or self._born.believed or not (shift_s := self._clock.shift_s(self._born)):
            return
        self._from = int((self._born.wall - self._born.uptime) * 1000)
        self._to = self._from + int(self._clock.now().uptime * 1000)
        self.shift = int(shift_s * 1000)

    def corrected(self, times: list[int]) -> list[int]:
        return [moment + self.shift if self._from <= moment < self._to else moment for moment in times]


class Window:
    """The times that lines may claim. `max_days` back is as far as the receiver takes them; 0: as far as there are."""

    def __init__(
        self, max_days: float = 0, *, now: Callable[[], float] = time.time, correction: Correction | None = None
    ) -> None:
        self._age_ms = int(max_days * DAY_MS)
        self._now = now
        self._correction = correction

    def believed(self, times: list[int], arrival: int) -> list[int]:
        """The same list, or one in which what cannot be a time is `arrival`, or now if that cannot be one either."""
        if self._correction is not None and self._correction.shift:
            times = self._correction.corrected(times)
            arrival = self._correction.corrected([arrival])[0]
        if not times:
            return times
        now = int(self._now() * 1000)
        low = max(EARLIEST_MS, now - self._age_ms + _MARGIN_MS) if self._age_ms else EARLIEST_MS
        high = now + _AHEAD_MS - _MARGIN_MS
        ordered = sorted(times)  # as they mostly are already, and then faster than `min` and `max`
        if ordered[0] >= low and ordered[-1] <= high:
            return times
        if not low <= arrival <= high:
            arrival = now
        return [moment if low <= moment <= high else arrival for moment in times]


def wall_ms(text: str) -> int | None:
    """Milliseconds since 1970 on the clock that showed `text` (2026-11-21T10:00:00); None if there is no such time."""
    try:
        return (datetime.fromisoformat(text).replace(tzinfo=timezone.utc) - _EPOCH) // _MILLISECOND
    except (ValueError, OverflowError):
        return None


def offset_ms(zone: str | None) -> int | None:
    """What the zone named after a time is ahead of UTC, in ms; None if it names none, or cannot be one."""
    zone = (zone or "").strip()
    if not zone:
        return None
    if zone[0] not in "+-":
        return 0
    digits = zone[1:].replace(":", "")
    minutes = int(digits[:2]) * 60 + int(digits[2:] or "0")
    if minutes > 14 * 60 or minutes % 15:
        return None
    return minutes * (-60_000 if zone[0] == "-" else 60_000)


def fraction_ms(digits: str | None) -> int:
    return int((digits or "0")[:3].ljust(3, "0"))


def claimed_ms(value: object, zone: Zone, arrival: int, last: int) -> int | None:
    """Unix ms of a JSON record's time: ISO 8601, or a number of seconds, milli-, micro- or nanoseconds since 1970."""
    if isinstance(value, str):
        if _NUMBER.fullmatch(value):
            return _number_ms(float(value))
        return iso_ms(value, zone, arrival, last)
    return _number_ms(value) if isinstance(value, int | float) else None


def _number_ms(value: float) -> int | None:
    """By its size: seconds until the year 5138, milliseconds from 1973 to 5138, and so on."""
    for limit, per_second in ((1e11, 1), (1e14, 10**3), (1e17, 10**6), (1e20, 10**9)):
        if 0 < value < limit:
            return round(value * 1000) if per_second == 1 else int(value) * 1000 // per_second
    return None


def _spelled(short: re.Match[str]) -> str:
    year, month, day, hour, minute, second, rest = short.groups()
    return f"{year}-{month}-{day}T{hour}:{minute}:{second or '00'}{rest}"


def iso_ms(text: str, zone: Zone | None = None, arrival: int = 2**62, last: int = 0) -> int | None:
    """Unix milliseconds of a time in ISO 8601 and its relatives; one without a zone is local."""
    match = _TIME.fullmatch(text) or _TIME.fullmatch(_SHORT.sub(_spelled, text))
    if match is not None:
        second, fraction, offset = wall_ms(f"{match[1]}T{match[2]}"), fraction_ms(match[3]), offset_ms(match[4])
    else:
        try:
            moment = datetime.fromisoformat(text)
        except (ValueError, OverflowError):
            return None
        second, fraction = (moment.replace(tzinfo=timezone.utc) - _EPOCH) // _MILLISECOND, 0
        ahead = moment.utcoffset()
        offset = None if ahead is None else ahead // _MILLISECOND
    if second is None:
        return None
    if offset is None:
        return (zone or Zone()).utc_ms(second, arrival, last) + fraction
    return second + fraction - offset
