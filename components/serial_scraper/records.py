"""What the lines of a port mean: results of Edge Impulse firmware, or records of a format the user describes."""

import re
from collections.abc import Callable, Iterable
from typing import Any, Literal, Protocol

import msgspec

from edgeml import patterns
from edgeml.errors import ConfigError
from edgeml.json_limits import too_deep
from edgeml.numbers import integer, number
from serial_scraper import pattern_check
from serial_scraper.edge_impulse import Block, EdgeImpulseParser

Record = dict[str, Any]
Type = Literal["int", "float", "str", "bool"]
Unknown = Callable[[str], None]

MAX_SEARCHED = 4096  # characters

_BOOLEANS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
TYPES: dict[Type, Callable[[str], Any]] = {
    "int": integer,
    "float": number,
    "str": str,
    "bool": lambda text: _BOOLEANS[text.lower()],
}


class SerialRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Message on `edgeml/serial/<port>/record`. `at` is when its last line arrived, Unix seconds."""

    port: str
    at: float
    format: str
    record: Record


class Format(Protocol):
    """Incremental: `unknown`, given when it is made, is called with each line that is no part of a record."""

    def feed(self, lines: Iterable[str]) -> list[Record]:
        """The records that these lines complete."""

    def flush(self) -> list[Record]:
        """The record that is complete because nothing followed for a while."""


class EdgeImpulse:
    """Records are `{"timing": ..., "result": ...}`: see edge_impulse.Block."""

    def __init__(self, unknown: Unknown) -> None:
        self._unknown = unknown
        self._parser = EdgeImpulseParser(unknown)

    def feed(self, lines: Iterable[str]) -> list[Record]:
        return self._records(lambda: self._parser.feed(lines))

    def flush(self) -> list[Record]:
        return self._records(self._parser.flush)

    def _records(self, parse: Callable[[], Iterable[Block]]) -> list[Record]:
        try:
            return [{"timing": block.timing, "result": block.result} for block in parse()]
        except Exception:
            self._parser = EdgeImpulseParser(self._unknown)  # it must not trip over what it holds again and again
            raise


class LinePerRecord:
    """Formats whose records are single lines. What `parse` raises, of any kind, says that a line is none."""

    def __init__(self, parse: Callable[[str], Record], unknown: Unknown) -> None:
        self._parse, self._unknown = parse, unknown

    def feed(self, lines: Iterable[str]) -> list[Record]:
        records = []
        for line in lines:
            try:
                records.append(self._parse(line))
            except Exception:  # noqa: BLE001  (a line that no parser expected is not understood, and ends nothing)
                self._unknown(line)
        return records

    def flush(self) -> list[Record]:
        return []


def jsonl(unknown: Unknown) -> Format:
    """One JSON object per line."""
    decoder = msgspec.json.Decoder(dict[str, Any])

    def parse(line: str) -> Record:
        encoded = line.strip().encode()
        if too_deep(encoded):
            raise ValueError("nested too deeply")
        record = decoder.decode(encoded)
        msgspec.json.encode(record)  # what cannot be told again is none
        return record

    return LinePerRecord(parse, unknown)


def csv(columns: dict[str, Type], delimiter: str, unknown: Unknown) -> Format:
    """One value per column, in the order of `columns`. Values are not quoted: microcontrollers do not."""
    if not columns:
        raise ConfigError("columns", "the csv format needs the names and types of its columns")
    converters = [(name, TYPES[kind]) for name, kind in columns.items()]

    def parse(line: str) -> Record:
        values = line.split(delimiter)
        return {name: convert(text.strip()) for (name, convert), text in zip(converters, values, strict=True)}

    return LinePerRecord(parse, unknown)


def regex(pattern: str, columns: dict[str, Type], unknown: Unknown) -> Format:
    """Named groups of a pattern that must match somewhere in the line; groups without a type are text.

    Lines above MAX_SEARCHED characters are not understood: a pattern may take time with the square of the length.
    """
    try:
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise ConfigError("pattern", f"no regular expression: {patterns.reason(error)}, found {pattern!r}") from error
    if (nested := pattern_check.nested(pattern)) is not None:
        raise ConfigError("pattern", f"{nested}: it can take for ever on a line that does not match, found {pattern!r}")
    if not compiled.groupindex:
        raise ConfigError("pattern", f"named groups as (?P<name>...) are needed, found {pattern!r}")
    if strangers := columns.keys() - compiled.groupindex.keys():
        raise ConfigError("columns", f"no groups of the pattern: {', '.join(sorted(strangers))}")
    converters = {name: TYPES[columns.get(name, "str")] for name in compiled.groupindex}

    def parse(line: str) -> Record:
        found = compiled.search(line) if len(line) <= MAX_SEARCHED else None
        if found is None:
            raise ValueError(line)
        groups = found.groupdict()
        return {name: convert(groups[name]) for name, convert in converters.items() if groups[name] is not None}

    return LinePerRecord(parse, unknown)
