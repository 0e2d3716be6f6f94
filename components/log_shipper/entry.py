"""One journal entry as `journalctl --output=json` prints it, whatever its fields have become on the way.

A field that occurs twice is a list, one that is not UTF-8 a list of bytes, one that is too large null.
Format: https://systemd.io/JOURNAL_EXPORT_FORMATS/#journal-json-format
"""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from log_shipper.copier import decoded
from log_shipper.parse import LEVELS

NO_MESSAGE = "(a journal entry whose message is too large to be shown)"
_DEFAULT_PRIORITY = 6  # what systemd gives whatever a service prints
_OF_PRIORITY = [LEVELS["ERROR"]] * 4 + [LEVELS["WARN"], LEVELS["INFO"], LEVELS["INFO"], LEVELS["DEBUG"]]

_WORDS = {"TRAC": "TRACE", "DEBU": "DEBUG", "INFO": "INFO", "NOTI": "INFO", "WARN": "WARN", "ERRO": "ERROR"}
_WORDS |= {"ERR": "ERROR", "CRIT": "ERROR", "FATA": "ERROR", "SEVE": "ERROR"}
_WORDS |= {"E": "ERROR", "W": "WARN", "I": "INFO", "D": "DEBUG", "T": "TRACE"}
_NAMES = "TRACE|DEBUG|INFO|NOTICE|WARN(?:ING)?|ERR(?:OR)?|CRIT(?:ICAL)?|FATAL|SEVERE"
_HEAD_CHARS = 200  # of a text are looked at
_LEVEL = re.compile(
    r"(?:\x1b\[[0-9;]*m)*"
    r"(?:[\[(]?\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d[0-9.,:+-]*Z?[\])]?\s{0,4})?"
    r"(?:-\s[\w.-]+\s-\s)?"
    rf"[\[(<|\s]{{0,4}}(?:({_NAMES})\b|((?i:{_NAMES}))(?=[\]:])|([EWIDT])\[[\w.-]+\]\s)",
    re.ASCII,
)
_KEY = re.compile(rf'(?:"level"\s?:\s?"|\blevel="?)((?i:{_NAMES}))\b', re.ASCII)


class Entry(NamedTuple):
    """`time_ms` in Unix ms, 0 if it says none; `level` None where neither the text nor its priority tells one."""

    cursor: str
    time_ms: int
    text: str
    level: int | None


def entry_of(line: str) -> Entry | None:
    """None if journalctl printed something else."""
    fields = decoded(line)
    if fields is None:
        return None
    time_us = next((text for text in _texts(fields.get("__REALTIME_TIMESTAMP")) if _is_number(text)), "0")
    text = "\n".join(_texts(fields["MESSAGE"])) if fields.get("MESSAGE") is not None else ""
    if "MESSAGE" in fields and fields["MESSAGE"] is None:
        text = NO_MESSAGE
    text = text.replace("\0", "").rstrip("\n")
    cursor = next(_texts(fields.get("__CURSOR")), "")
    return Entry(cursor, int(time_us) // 1000, text, _level(list(_texts(fields.get("PRIORITY"))), text))


def level_of(text: str) -> int | None:
    """The level that a line names in its first characters, as far as that can be told."""
    head = text[:_HEAD_CHARS]
    match = _LEVEL.match(head) or _KEY.search(head)
    word = next((group for group in match.groups() if group), "") if match else ""
    name = _WORDS.get(word[:4].upper())
    return LEVELS[name] if name else None


def _level(priorities: list[str], text: str) -> int | None:
    known = [int(value) for value in priorities if len(value) == 1 and value in "01234567"]
    priority = min(known, default=_DEFAULT_PRIORITY)
    if priority != _DEFAULT_PRIORITY:
        return _OF_PRIORITY[priority]
    return level_of(text)


def _texts(value: Any) -> Iterator[str]:
    """All texts of a field: one, several where it occurs more than once, none where it is null or missing."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list) and value and all(isinstance(item, int) and 0 <= item < 256 for item in value):
        yield bytes(value).decode(errors="replace")
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif value is not None:
        yield str(value)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 20
