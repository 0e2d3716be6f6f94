"""`python -m serial_scraper parse`: what a capture of a serial port holds, one JSON line per record."""

import argparse
import sys
from collections.abc import Callable
from typing import BinaryIO, TextIO

from edgeml.errors import ConfigError
from edgeml.messages import encode
from serial_scraper import lines, records
from serial_scraper.records import Format, Unknown

MAX_LINE_BYTES = 1 << 20
_CHUNK_BYTES = 65_536


def main(argv: list[str]) -> int:
    arguments = _arguments(argv)
    unknown = 0

    def count(line: str) -> None:
        nonlocal unknown
        unknown += 1
        if arguments.unknown:
            sys.stderr.write(f"not understood: {line}\n")

    try:
        form = _format(arguments, count)
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    found = parse(sys.stdin.buffer, sys.stdout, form)
    sys.stderr.write(f"{found} records, {unknown} lines not understood\n")
    return 0


def parse(capture: BinaryIO, out: TextIO, form: Format) -> int:
    """Write the records of `capture` to `out`; how many there were."""
    splitter = lines.LineSplitter(MAX_LINE_BYTES)
    found = 0
    while data := capture.read(_CHUNK_BYTES):
        found += _write(out, form.feed(lines.text(line)[0] for line in splitter.feed(data)))
    found += _write(out, form.feed(lines.text(line)[0] for line in splitter.feed(b"\n")))
    return found + _write(out, form.flush())


def _write(out: TextIO, found: list[records.Record]) -> int:
    for record in found:
        out.write(encode(record).decode() + "\n")
    return len(found)


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m serial_scraper parse", description=__doc__)
    parser.add_argument("--format", choices=["edge_impulse", "jsonl", "csv", "regex"], default="edge_impulse")
    parser.add_argument(
        "--column", action="append", default=[], metavar="NAME:TYPE", help="int, float, str or bool; once per column"
    )
    parser.add_argument("--delimiter", default=",", help="of csv")
    parser.add_argument("--pattern", default="", help="of regex, with named groups")
    parser.add_argument("--unknown", action="store_true", help="show the lines that are no part of a record")
    return parser.parse_args(argv)


def _format(arguments: argparse.Namespace, unknown: Unknown) -> Format:
    columns = {}
    for column in arguments.column:
        name, _, kind = column.rpartition(":")
        if not name or kind not in records.TYPES:
            raise ConfigError("--column", f"NAME:TYPE with one of {', '.join(records.TYPES)}, found {column!r}")
        columns[name] = kind
    makers: dict[str, Callable[[], Format]] = {
        "edge_impulse": lambda: records.EdgeImpulse(unknown),
        "jsonl": lambda: records.jsonl(unknown),
        "csv": lambda: records.csv(columns, arguments.delimiter, unknown),
        "regex": lambda: records.regex(arguments.pattern, columns, unknown),
    }
    return makers[arguments.format]()
