"""The lines of a log that `logs get --filter` picks, in both formats of the nucleus."""

import json
import re
from collections.abc import Sequence

from localdev.core.client import CliError

_LEVELS = ("DEBUG", "INFO", "WARN", "ERROR")
_TEXT = re.compile(r"\S+ \[(?P<level>[A-Z]+)\] \((?P<thread>[^)]*)\) (?P<loggerName>[^ :]+): (?P<eventType>[^. ]*)")
_KEYS = ("level", "thread", "loggerName", "eventType", "serviceName", "error")


class Filter:
    """Each expression must hold; of its parts, separated by commas, one must.

    A part is KEY=VALUE, `level` meaning this level and those above it, or a regular expression.
    """

    def __init__(self, expressions: Sequence[str], before: int = 0, after: int = 0) -> None:
        """`before`, `after`: lines shown around one that is picked. CliError for what is no expression."""
        self._rules = [[_part(part.strip()) for part in text.split(",") if part.strip()] for text in expressions]
        self._before, self._after = before, after

    def pick(self, text: str) -> str:
        """The lines of a piece of log that are picked, with those around them."""
        if not self._rules:
            return text
        lines = text.splitlines(keepends=True)
        shown: set[int] = set()
        for number, line in enumerate(lines):
            if all(any(_holds(part, line) for part in rule) for rule in self._rules):
                shown.update(range(max(0, number - self._before), min(len(lines), number + self._after + 1)))
        return "".join(lines[number] for number in sorted(shown))


_Part = tuple[str, str] | re.Pattern[str]


def _part(text: str) -> _Part:
    key, equals, value = text.partition("=")
    if equals and key in _KEYS:
        if key == "level" and value.upper() not in _LEVELS:
            raise CliError(f"--filter {text}: a level is one of {', '.join(_LEVELS)}")
        return key, value
    try:
        return re.compile(text)
    except re.error as error:
        raise CliError(f"--filter {text}: {error}") from error


def _holds(part: _Part, line: str) -> bool:
    if isinstance(part, re.Pattern):
        return part.search(line) is not None
    key, value = part
    found = _fields(line).get(key)
    if key == "level":
        return found in _LEVELS and _LEVELS.index(found) >= _LEVELS.index(value.upper())
    return found == value


def _fields(line: str) -> dict[str, str]:
    if line.startswith("{"):
        try:
            record = json.loads(line)
            return {**record, **record.get("contexts", {})}
        except (ValueError, AttributeError, TypeError):
            return {}
    match = _TEXT.match(line)
    service = re.search(r"serviceName=([^,}]+)", line)
    return (match.groupdict() if match else {}) | ({"serviceName": service[1]} if service else {})
