"""Log text to records: when, what text, which lines. The hot path of the component.

Where the time goes (profiled with 264-byte nucleus lines in batches of 1 MiB, 1.7 us of CPU a line in all): reading,
splitting and the loop below 0.8; JSON 0.2, SHA-256 of the signed body 0.3, the socket 0.3; the checkpoint's fsync 0.1.
What keeps the loop short: `datetime` costs 1 us a line and a regular expression another, so the 19 characters up to the
second and the 12 after them (fraction and level, which repeat) are looked up in two caches, and only what the caches do
not know is parsed. msgspec encodes a list of structs as fast as orjson encodes one of dicts, so there is no orjson.
"""

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

import msgspec

from log_shipper.copier import emf_of, rejoin

DAY_MS = 86_400_000
LEVELS = {"TRACE": 0, "DEBUG": 1, "INFO": 2, "WARN": 3, "ERROR": 4}
_RANKS = {name[:4]: rank for name, rank in LEVELS.items()} | {"NOTI": 2, "FATA": 5, "CRIT": 5}

_DROPPED = -(2**62)
_MAX_SECONDS, _MAX_TAILS = 4096, 16384

_DATED = re.compile(
    r"[\[(]?(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d{1,9}))?(Z|[+-]\d\d:?\d\d)?"
    r"(?:\s+\[(TRACE|DEBUG|INFO|WARN|ERROR|FATAL)\b)?"
)
_JSON_LEVEL = re.compile(r'"level"\s*:\s*"(\w{4})')
_ENDS = (",", "}")
_TRACEBACK = "Traceback (most recent call last):"


class Attach(Enum):
    """What becomes of a line that begins no record: it is part of the record before, goes with it, or stands alone."""

    RECORD = "record"
    DROPPED = "dropped"
    NOTHING = "nothing"
    LINE = "line"  # the rest of a line too long for one event


@dataclass(slots=True)
class Records:
    """Parallel lists: Unix time in ms, text, and index of the first line. `attach` is the state after the last line."""

    times: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    attach: Attach = Attach.NOTHING

    def cut(self, count: int) -> None:
        """Keep the first `count` records."""
        del self.times[count:], self.texts[count:], self.starts[count:]


class Parser:
    """One log's rules. Not thread-safe; one per log."""

    def __init__(self, minimum_level: str, start_pattern: re.Pattern[str] | None, *, rejoin_tracebacks: bool) -> None:
        self._minimum = LEVELS[minimum_level]
        self._pattern = start_pattern
        self._rejoin = rejoin_tracebacks
        self._seconds: dict[str, int] = {}
        self._tails: dict[str, int] = {}

    def parse(self, text: str, arrival: int, attach: Attach = Attach.NOTHING) -> Records:
        """Records of whole lines (`text` ends in a newline). Undated ones get the time `arrival`, in Unix ms."""
        if "\0" in text:
            text = text.replace("\0", "")
        if "\r" in text:
            text = text.replace("\r\n", "\n")
        lines = text.split("\n")
        lines.pop()
        if self._pattern is not None or "_aws" in text:
            records = self._each(lines, arrival, attach)
        elif text.startswith("{"):
            records = self._json(lines, arrival, attach)
        else:
            records = self._text(lines, arrival, attach)
        if self._rejoin and _TRACEBACK in text:
            rejoin(records)
        return records

    def _text(self, lines: list[str], arrival: int, attach: Attach) -> Records:
        records = Records(attach=attach)
        times, texts, starts = records.times, records.texts, records.starts
        seconds, tails, kept, dropped = self._seconds, self._tails, Attach.RECORD, Attach.DROPPED
        joined: dict[int, int] = {}
        for index, line in enumerate(lines):
            try:
                time = seconds[line[:19]] + tails[line[19:31]]
            except KeyError:
                if line:
                    records.attach = attach
                    self._slow(records, joined, index, line, arrival)
                    attach = records.attach
                continue
            if time > 0:
                times.append(time)
                texts.append(line)
                starts.append(index)
                attach = kept
            else:
                attach = dropped
        records.attach = attach
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
                or not digits.isdigit()
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
        elif self._pattern is not None and not self._pattern.search(line) and records.attach is not Attach.NOTHING:
            self._continue(records, joined, index, line, arrival)
        elif line.startswith("{"):
            time = self._json_time(line)
            self._begin(records, index, line, arrival if time is None else time, Attach.NOTHING)
        elif (match := _DATED.match(line)) is not None:
            time = self._text_time(line, match)
            self._begin(records, index, line, arrival if time is None else time, Attach.RECORD)
        elif self._pattern is not None and self._pattern.search(line):
            self._begin(records, index, line, arrival, Attach.RECORD)
        else:
            self._continue(records, joined, index, line, arrival)

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

    def _text_time(self, line: str, match: re.Match[str]) -> int | None:
        day, clock, fraction, zone, level = match.groups()
        second = self._seconds.get(key := f"{day}T{clock}")
        if second is None:
            second = iso_ms(key)
            if second is None:  # looks like a date and is none, such as 2022-13-41
                return None
            if len(self._seconds) >= _MAX_SECONDS:
                self._seconds.clear()
            self._seconds[key] = self._seconds[f"{day} {clock}"] = second
        tail = int((fraction or "0")[:3].ljust(3, "0")) - _offset_ms(zone)
        kept = level is None or _RANKS[level[:4]] >= self._minimum
        if level is not None and match.end() <= 31 and line[0].isdigit():
            if len(self._tails) >= _MAX_TAILS:
                self._tails.clear()
            self._tails[line[19:31]] = tail if kept else _DROPPED
        return second + tail if kept else _DROPPED

    def _json_time(self, line: str) -> int | None:
        match = _JSON_LEVEL.search(line)
        if match is not None and _RANKS.get(match[1].upper(), 9) < self._minimum:
            return _DROPPED
        return _decoded_time(line)


def _join(records: Records, joined: dict[int, int], lines: list[str]) -> None:
    for record, end in joined.items():
        records.texts[record] = "\n".join([records.texts[record], *lines[records.starts[record] + 1 : end]])


def _offset_ms(zone: str | None) -> int:
    if zone is None or zone == "Z":
        return 0
    minutes = int(zone[1:3]) * 60 + int(zone[-2:])
    return minutes * (-60_000 if zone[0] == "-" else 60_000)


def _decoded_time(line: str) -> int | None:
    """Time of a JSON record of any other make: its `timestamp`, `time` or `ts`, as a number or as ISO 8601."""
    try:
        record = msgspec.json.decode(line)
    except msgspec.DecodeError:
        return None
    value: Any = next((record[key] for key in ("timestamp", "@timestamp", "time", "ts") if key in record), None)
    if isinstance(value, str):
        return iso_ms(value)
    if isinstance(value, int | float) and 0 < value < 1e14:
        return int(value if value > 1e11 else value * 1000)  # seconds until the year 5138
    return None


def iso_ms(text: str) -> int | None:
    """Unix milliseconds of an ISO 8601 time, UTC unless it says otherwise."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
