"""Separated values as people's programs write them: by commas, by tabs, or by semicolons with decimal commas."""

import csv
import re
from collections.abc import Sequence

from edgeml import numbers, text
from edgeml.errors import BackendError

MAX_BYTES = 64 << 20  # of a table
SEPARATORS = (",", ";", "\t")
_DECLARED = re.compile(r"sep=(.)")  # the first line that Excel writes and reads


def separator_of(line: str) -> str:
    """What separates the values of a line. A comma beside semicolons or tabs is a decimal one."""
    return ";" if ";" in line else "\t" if "\t" in line else ","


def split(line: str, separator: str) -> list[str]:
    """The values of a line, with decimal points. Raises BackendError where commas and points are mixed."""
    if separator != "," and "," in line:
        if "." in line:
            raise BackendError(f"expected one decimal mark, found commas and points: {line[:80]!r}")
        line = line.replace(",", ".")
    return line.split(separator)


def rows(data: bytes, name: str) -> list[dict[str, float]]:
    """The rows of a CSV whose first line names the columns. Raises BackendError with the line that is wrong."""
    try:
        lines = text.lines(data)
    except ValueError as error:
        raise BackendError(f"{name}: {error}; save it as UTF-8") from error
    start = 0
    separator = ""
    if lines and (declared := _DECLARED.fullmatch(lines[0])):
        separator, start = declared[1], 1
    header = lines[start] if len(lines) > start else ""
    separator = separator or max(SEPARATORS, key=header.count)
    if separator not in SEPARATORS:
        raise BackendError(f"{name}: values separated by {separator!r}, expected a comma, a semicolon or a tab")
    table = _table(lines[start:], separator, name, start)
    if not table:
        raise BackendError(f"{name}: no header")
    names = _names([value.strip() for value in table[0][1]], name)
    found = [_row(names, values, f"{name}, line {line}") for line, values in table[1:]]
    if not found:
        raise BackendError(f"{name}: no rows")
    body = [value for row in found for value in row]
    comma = separator != "," and any("," in value for value in body)
    if comma and any("." in value for value in body):
        raise BackendError(f"{name}: expected one decimal mark, found commas and points")
    places = [line for line, _ in table[1:]]
    return [
        dict(zip(names, _numbers(row, comma, f"{name}, line {line}"), strict=True))
        for line, row in zip(places, found, strict=True)
    ]


def _table(lines: Sequence[str], separator: str, name: str, before: int) -> list[tuple[int, list[str]]]:
    """Lines that are not blank, with their numbers."""
    reader = csv.reader(lines, delimiter=separator)
    try:
        return [(before + reader.line_num, row) for row in reader if any(value.strip() for value in row)]
    except csv.Error as error:
        raise BackendError(f"{name}, line {before + reader.line_num}: {error}") from error


def _names(header: list[str], name: str) -> list[str]:
    while header and not header[-1]:
        del header[-1]  # each line ends with a separator
    if not all(header):
        raise BackendError(f"{name}: column {header.index('') + 1} has no name")
    twice = next((column for column in header if header.count(column) > 1), None)
    if twice is not None:
        raise BackendError(f"{name}: two columns are named {twice!r}")
    return header


def _row(names: Sequence[str], values: list[str], place: str) -> list[str]:
    values = [value.strip() for value in values]
    while len(values) > len(names) and not values[-1]:
        del values[-1]
    if len(values) != len(names):
        raise BackendError(f"{place}: {len(values)} values, the header names {len(names)}")
    return values


def _numbers(values: list[str], comma: bool, place: str) -> list[float]:
    try:
        return [numbers.number(value.replace(",", ".") if comma else value) for value in values]
    except ValueError as error:
        raise BackendError(f"{place}: expected numbers: {error}") from error
