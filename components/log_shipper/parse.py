"""Log text to records: when, what text, which lines. The hot path of the component.

Where the time goes, in percent of the CPU of a line (264 bytes of the nucleus' format, batches of 1 MiB; all of it is
1.2 to 1.4 times what plain Python needs that only reads, stamps and sends: `scripts/bench log_throughput`): times 18,
JSON 18, SHA-256 of the signed body 16, reading, decoding and splitting 18, HTTP and the socket 12, looking for embedded
metrics and tracebacks 4, the checkpoint 3, the rest of the signature 2; sorting, and freeing what was made, the rest.
None of that is a line of Python for a line of a log. Of the C that remains, `str.split` goes from byte to byte (0.4 ns
each), and so does msgspec where it looks for what JSON must escape; `list(io.BytesIO(block))` splits four times as
fast, but leaves a newline on each line, and cutting that off costs what was won. Encoding a block as one text and
putting the times between its lines afterwards costs as much as the structs do. Smaller blocks, which would stay in the
cache, change nothing.

`datetime` costs 1 us a line and a regular expression another, so the 19 characters up to the second and the 13 after
them (fraction and level, which repeat) are looked up, and only what is new is parsed. msgspec encodes a list of structs
as fast as orjson encodes one of dicts, so there is no orjson.
"""

import logging
import re
from operator import add, itemgetter, length_hint

from edgeml.pace import Throttle
from log_shipper.copier import decoded, emf_of, may_hold_metrics, rejoin
from log_shipper.records import Attach, Records
from log_shipper.seconds import Seconds
from log_shipper.times import DAY_MS as DAY_MS
from log_shipper.times import ZONE, Window, Zone, claimed_ms, fraction_ms, offset_ms, wall_ms
from log_shipper.times import iso_ms as iso_ms

log = logging.getLogger(__name__)

LEVELS = {"TRACE": 0, "DEBUG": 1, "INFO": 2, "WARN": 3, "ERROR": 4}
_RANKS = {name[:4]: rank for name, rank in LEVELS.items()} | {"NOTI": 2, "FATA": 5, "CRIT": 5}

_DROPPED = -(2**62)
_MAX_TAILS = 16384
PATTERN_SEES = 2000  # characters of a line that a pattern of the user's own is tried on: it may be slow on more

_DATED = re.compile(
    rf"[\[(]?(\d{{4}}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d{{1,9}})\d*)?({ZONE})?"
    r"(?:\s+\[(TRACE|DEBUG|INFO|WARN|ERROR|FATAL)\b)?",
    re.ASCII,
)
_JSON_LEVEL = re.compile(r'"level"\s*:\s*"([A-Za-z]{4})')
_BOM = "\ufeff"
_TIME_KEYS = ("timestamp", "@timestamp", "time", "ts")
_ENDS = (",", "}")
_TAIL = itemgetter(slice(19, 32))
_TRACEBACK = "Traceback (most recent call last):"
_NUMBERS = list(range(10_000))  # as many as a batch has lines: not made anew for each


class Parser:
    """One log's rules. Not thread-safe; one per log.

    Whatever the bytes of a line are, it comes out: what cannot be understood goes as text, with the time of its
    arrival, and so does what claims a time outside of `window`.
    """

    def __init__(
        self,
        minimum_level: str,
        start_pattern: re.Pattern[str] | None,
        *,
        rejoin_tracebacks: bool,
        zone: Zone | None = None,
        window: Window | None = None,
    ) -> None:
        self._minimum = LEVELS[minimum_level]
        self._pattern = start_pattern
        self._rejoin = rejoin_tracebacks
        self._zone = zone or Zone()
        self.window = window or Window()
        self._seconds = Seconds()
        self._tails: dict[str, int] = {}
        self._drops = False  # whether some of them are of lines below the minimum level
        self._faults = Throttle()

    def parse(self, text: str, arrival: int, attach: Attach = Attach.NOTHING) -> Records:
        """Records of whole lines (`text` ends in a newline). Undated ones get the time `arrival`, in Unix ms."""
        text = cleaned(text)
        return self.parse_lines(text, lines_of(text), arrival, attach)

    def parse_lines(self, text: str, lines: list[str], arrival: int, attach: Attach) -> Records:
        """The same of a text that is `cleaned`, and of its lines or the first of them."""
        try:
            records = self._parsed(text, lines, arrival, attach)
        except Exception:  # a fault of ours costs one line its time, not the log its delivery
            if self._faults.due():
                log.exception("lines not understood, sent as text count=%d", self._faults.count)
            records = self._one_by_one(lines, arrival, attach)
        records.times = self.window.believed(records.times, arrival)
        return records

    def _parsed(self, text: str, lines: list[str], arrival: int, attach: Attach) -> Records:
        if self._pattern is not None or may_hold_metrics(text):
            records = self._each(lines, arrival, attach)
        elif text.startswith("{"):
            records = self._json(lines, arrival, attach)
        else:
            records = self._text(lines, arrival, attach)
        if self._rejoin and _TRACEBACK in text:
            rejoin(records)
        return records

    def _one_by_one(self, lines: list[str], arrival: int, attach: Attach) -> Records:
        """Each line apart, so that the one at fault is known: it becomes a record of its own."""
        records = Records(attach=attach)
        joined: dict[int, int] = {}
        for index, line in enumerate(lines):
            if not line:
                continue
            try:
                self._slow(records, joined, index, line, arrival)
            except Exception:  # noqa: BLE001  (it was logged when it came first)
                records.times.append(arrival)
                records.texts.append(line)
                records.starts.append(index)
                records.attach = Attach.NOTHING
        _join(records, joined, lines)
        return records

    def _text(self, lines: list[str], arrival: int, attach: Attach) -> Records:
        records = Records(attach=attach)
        joined: dict[int, int] = {}
        of_tail, seconds = iter(lines), self._seconds.of(lines)
        times = map(add, map(self._tails.__getitem__, map(_TAIL, of_tail)), seconds)
        begin, known = 0, False
        while not known:
            before = len(records.times)
            try:
                records.times.extend(times)  # as far as both caches know, and all of it in C
                known = True
            except KeyError:
                next(seconds)  # of the line whose tail is not known
            except TypeError:
                pass  # a known tail, and no second before it
            end = len(lines) - length_hint(of_tail) - (not known)
            _take(records, before, lines, begin, end, some_dropped=self._drops)
            if not known and lines[end]:
                self._slow(records, joined, end, lines[end], arrival)
            begin = end + 1
        _join(records, joined, lines)
        return records

    def _json(self, lines: list[str], arrival: int, attach: Attach) -> Records:
        """The core's JSON format. Quotes within its values are escaped, so `"timestamp":` can only be the key."""
        records = Records(attach=attach)
        times, texts, starts, minimum = records.times, records.texts, records.starts, self._minimum
        joined: dict[int, int] = {}
        for index, line in enumerate(lines):
            found = line.rfind('"timestamp":') + 12
            digits = line[found : found + 13]
            rank = _RANKS.get(line[(at := line.find('"level":"') + 9) : at + 4])
            if (
                line[:1] != "{"
                or found == 11
                or rank is None
                or not (digits.isdecimal() and digits.isascii())
                or line[found + 13 : found + 14] not in _ENDS
            ):
                if line:
                    self._slow(records, joined, index, line, arrival)
                continue
            records.attach = Attach.NOTHING
            if rank >= minimum:
                times.append(int(digits))
                texts.append(line)
                starts.append(index)
        _join(records, joined, lines)
        return records

    def _each(self, lines: list[str], arrival: int, attach: Attach) -> Records:
        """The same without caches, for what they cannot decide: a pattern of the user's own, embedded metrics."""
        records = Records(attach=attach)
        joined: dict[int, int] = {}
        for index, line in enumerate(lines):
            if line:
                self._slow(records, joined, index, line, arrival)
        _join(records, joined, lines)
        return records

    def _slow(self, records: Records, joined: dict[int, int], index: int, line: str, arrival: int) -> None:
        if "_aws" in line and (metrics := emf_of(line)) is not None:
            self._begin(records, index, metrics.text, metrics.time or arrival, Attach.NOTHING)
        elif self._pattern is not None and not self._begins(line) and records.attach is not Attach.NOTHING:
            self._continue(records, joined, index, line, arrival)
        elif line.startswith("{"):
            time = self._json_time(line, arrival, records.times[-1] if records.times else 0)
            self._begin(records, index, line, arrival if time is None else time, Attach.NOTHING)
        elif (match := _DATED.match(line)) is not None:
            time = self._text_time(line, match, arrival, records.times[-1] if records.times else 0)
            self._begin(records, index, line, arrival if time is None else time, Attach.RECORD)
        elif self._pattern is not None and self._begins(line):
            self._begin(records, index, line, arrival, Attach.RECORD)
        else:
            self._continue(records, joined, index, line, arrival)

    def _begins(self, line: str) -> bool:
        return self._pattern is not None and self._pattern.search(line[:PATTERN_SEES]) is not None

    def _begin(self, records: Records, index: int, line: str, time: int, attach: Attach) -> None:
        if time == _DROPPED:
            records.attach = Attach.DROPPED if attach is Attach.RECORD or self._pattern else Attach.NOTHING
            return
        records.times.append(time)
        records.texts.append(line)
        records.starts.append(index)
        records.attach = Attach.RECORD if self._pattern else attach

    def _continue(self, records: Records, joined: dict[int, int], index: int, line: str, arrival: int) -> None:
        if records.attach is Attach.RECORD and records.texts:
            joined[len(records.texts) - 1] = index + 1
        elif records.attach is not Attach.DROPPED:
            # The record it belongs to is gone already, or it belongs to none.
            records.times.append(arrival)
            records.texts.append(line)
            records.starts.append(index)

    def _text_time(self, line: str, match: re.Match[str], arrival: int, last: int) -> int | None:
        day, clock, fraction, zone, level = match.groups()
        second = self._seconds[key := f"{day}T{clock}"]
        if second is None:
            second = wall_ms(key)
        if second is None:  # looks like a date and is none, such as 2022-13-41
            return None
        kept = level is None or _RANKS[level[:4]] >= self._minimum
        ahead = offset_ms(zone)
        tail = fraction_ms(fraction) - (ahead or 0)
        # What the cache sees includes the character after the level: `[DEBUGGER]` is none.
        told = level is not None and match.end() <= 31 and line[0].isdecimal()
        if told and (ahead is not None or self._zone.is_utc):
            if len(self._tails) >= _MAX_TAILS:
                self._tails.clear()
            self._tails[_TAIL(line)] = tail if kept else _DROPPED
            self._drops = self._drops or not kept
        if not kept:
            return _DROPPED
        return (second if ahead is not None else self._zone.utc_ms(second, arrival, last)) + tail

    def _json_time(self, line: str, arrival: int, last: int) -> int | None:
        match = _JSON_LEVEL.search(line)
        if match is not None and _RANKS.get(match[1].upper(), 9) < self._minimum:
            return _DROPPED
        record = decoded(line) or {}
        claims = (
            claimed_ms(record[key], self._zone, arrival, last) for key in _TIME_KEYS if record.get(key) is not None
        )
        return next((moment for moment in claims if moment is not None), None)


def _take(records: Records, before: int, lines: list[str], begin: int, end: int, *, some_dropped: bool) -> None:
    """Add the lines from `begin` to `end`, whose times have been added after the first `before`."""
    if begin == end:
        return
    times = records.times[before:] if before else records.times
    records.attach = Attach.RECORD if times[-1] > 0 else Attach.DROPPED
    if not some_dropped or min(times) > 0:
        records.texts += lines if end - begin == len(lines) else lines[begin:end]
        records.starts += _NUMBERS[begin:end] if end <= len(_NUMBERS) else range(begin, end)
        return
    kept = [index for index, time in enumerate(times, begin) if time > 0]
    records.times[before:] = [time for time in times if time > 0]
    records.texts += map(lines.__getitem__, kept)
    records.starts += kept


def lines_of(text: str) -> list[str]:
    """The lines of a text that ends in a newline."""
    lines = text.split("\n")
    lines.pop()
    return lines


def cleaned(text: str) -> str:
    """Without what is no part of a line: NULs, carriage returns before its end, a byte order mark at its start."""
    if "\0" in text:
        text = text.replace("\0", "")
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    if _BOM in text:
        text = text.replace(f"\n{_BOM}", "\n").removeprefix(_BOM)
    return text


def _join(records: Records, joined: dict[int, int], lines: list[str]) -> None:
    for record, end in joined.items():
        records.texts[record] = "\n".join([records.texts[record], *lines[records.starts[record] + 1 : end]])
