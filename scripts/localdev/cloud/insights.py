"""CloudWatch Logs Insights: the part of its query language that the dashboards use. moto answers every query alike.

SOURCE 'group' | filter field = 'value' | filter field like /regex/ | parse @message '* *' as a, b
| stats fn(x) as y, ... by f, bin(5m) as t | sort f desc
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]

_STAT = re.compile(r"(\w+)\(([@\w]*)\)(?:\s+as\s+(\w+))?")
_BIN = re.compile(r"bin\((\d+)(s|m|h)\)(?:\s+as\s+(\w+))?")
_FILTER = re.compile(r"([@\w]+) (?:(=|!=) '([^']*)'|like /([^/]+)/)")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


class QueryError(ValueError):
    """A query is not understood, or names a field that does not exist."""


@dataclass(frozen=True)
class Event:
    timestamp: float  # Unix time in seconds
    stream: str
    message: str


def source(query: str) -> str:
    """The log group a dashboard's query reads."""
    found = re.match(r"SOURCE '([^']+)'", query)
    if found is None:
        raise QueryError(f"no SOURCE: {query}")
    return found[1]


def run(query: str, events: list[Event]) -> list[Row]:
    """Rows of results; `bin` gives the Unix time at which its interval starts. Raises QueryError."""
    rows = [{"@timestamp": e.timestamp, "@logStream": e.stream, "@message": e.message} for e in events]
    for command in query.split(" | ")[1:]:
        word, _, rest = command.strip().partition(" ")
        if word not in _COMMANDS:
            raise QueryError(f"{word} is not implemented here")
        rows = _COMMANDS[word](rest, rows)
    return rows


def _filter(command: str, rows: list[Row]) -> list[Row]:
    test = _FILTER.fullmatch(command.strip())
    if test is None:
        raise QueryError(f"filter {command}")
    field, operator, text, pattern = test.groups()
    values = [str(row.get(field, "")) for row in rows]
    if pattern is not None:
        return [row for row, value in zip(rows, values, strict=True) if re.search(pattern, value)]
    return [row for row, value in zip(rows, values, strict=True) if (value == text) == (operator == "=")]


def _parse(text: str, rows: list[Row]) -> list[Row]:
    """A line that does not match keeps its row, without the new fields."""
    found = re.fullmatch(r"([@\w]+) '([^']*)' as (.+)", text.strip())
    if found is None:
        raise QueryError(f"parse {text}")
    names = [name.strip() for name in found[3].split(",")]
    pattern = re.compile("(.*?)".join(map(re.escape, found[2].split("*"))))
    if pattern.groups != len(names):
        raise QueryError(f"parse: {pattern.groups} asterisks, {len(names)} names")
    parsed = []
    for row in rows:
        match = pattern.fullmatch(str(row.get(found[1], "")))
        parsed.append(row | dict(zip(names, match.groups(), strict=True)) if match else row)
    return parsed


def _stats(text: str, rows: list[Row]) -> list[Row]:
    selected, _, keys = text.partition(" by ")
    statistics = [_statistic(item.strip()) for item in _split(selected)]
    groupers = [_grouper(item.strip()) for item in _split(keys)] if keys else []
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(key(row) for _, key in groupers), []).append(row)
    return [
        {name: value for (name, _), value in zip(groupers, group, strict=True)}
        | {name: compute(members) for name, compute in statistics}
        for group, members in groups.items()
    ]


def _statistic(text: str) -> tuple[str, Callable[[list[Row]], Any]]:
    found = _STAT.fullmatch(text)
    if found is None or found[1] not in _FUNCTIONS:
        raise QueryError(f"stats {text}")
    function, field = _FUNCTIONS[found[1]], found[2]
    return found[3] or text, lambda rows: function([row for row in rows if row.get(field) is not None], field)


def _grouper(text: str) -> tuple[str, Callable[[Row], Any]]:
    found = _BIN.fullmatch(text)
    if found is None:
        return text, lambda row: row.get(text)
    seconds = int(found[1]) * _SECONDS[found[2]]
    return found[3] or "bin", lambda row: row["@timestamp"] // seconds * seconds


def _numbers(rows: list[Row], field: str) -> list[float]:
    try:
        return [float(row[field]) for row in rows]
    except ValueError as error:
        raise QueryError(f"{field}: {error}") from error


_FUNCTIONS: dict[str, Callable[[list[Row], str], Any]] = {
    "avg": lambda rows, field: sum(_numbers(rows, field)) / len(rows) if rows else None,
    "sum": lambda rows, field: sum(_numbers(rows, field)),
    "max": lambda rows, field: max(_numbers(rows, field), default=None),
    "min": lambda rows, field: min(_numbers(rows, field), default=None),
    "latest": lambda rows, field: max(rows, key=lambda row: row["@timestamp"])[field] if rows else None,
    "count_distinct": lambda rows, field: len({row[field] for row in rows}),
}


def _sort(text: str, rows: list[Row]) -> list[Row]:
    field, _, order = text.strip().partition(" ")
    return sorted(rows, key=lambda row: str(row.get(field, "")), reverse=order == "desc")


def _split(text: str) -> list[str]:
    return re.split(r",(?![^(]*\))", text)


_COMMANDS: dict[str, Callable[[str, list[Row]], list[Row]]] = {
    "filter": _filter,
    "parse": _parse,
    "stats": _stats,
    "sort": _sort,
}
