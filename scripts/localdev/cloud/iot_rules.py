"""AWS IoT topic rules: the part of their SQL that the template uses, and their actions.

SELECT *, field, field AS name, clientid() AS name, topic() AS name, topic(N) AS name, timestamp() AS name
FROM 'topic/filter' [WHERE field = literal [AND isUndefined(field) AND startswith(field, 'text') ...]]
"""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_STATEMENT = re.compile(r"\s*SELECT\s+(.+?)\s+FROM\s+'([^']+)'(?:\s+WHERE\s+(.+?))?\s*", re.IGNORECASE | re.DOTALL)
_ITEM = re.compile(r"(\*|\w+(?:\.\w+)*|clientid\(\)|timestamp\(\)|topic\((\d*)\))(?:\s+AS\s+(\w+))?", re.IGNORECASE)
_UNDEFINED = re.compile(r"isUndefined\(\s*([\w.]+)\s*\)", re.IGNORECASE)
_STARTS = re.compile(r"startswith\(\s*([\w.]+(\(\d*\))?)\s*,\s*'([^']*)'\s*\)", re.IGNORECASE)
_TEST = re.compile(r"([\w.]+)\s*(=|<>|!=)\s*('[^']*'|-?\d+(?:\.\d+)?|true|false)", re.IGNORECASE)


class SqlError(ValueError):
    """A rule's SQL is not understood."""


@dataclass(frozen=True)
class Message:
    topic: str
    payload: bytes
    client_id: str


class Query:
    """A rule's SELECT. `run` gives what its actions get, or None when the message is not for them."""

    def __init__(self, sql: str) -> None:
        statement = _STATEMENT.fullmatch(sql)
        if statement is None:
            raise SqlError(f"not understood: {sql}")
        self.topic_filter = statement[2]
        self._items = [_item(text) for text in statement[1].split(",")]
        self._tests = [_test(text) for text in re.split(r"\s+AND\s+", statement[3], flags=re.I)] if statement[3] else []

    def run(self, message: Message) -> dict[str, Any] | None:
        """Raises SqlError when the payload is not a JSON object."""
        if not matches(self.topic_filter, message.topic):
            return None
        try:
            body = json.loads(message.payload)
        except ValueError as error:
            raise SqlError(f"{message.topic}: the payload is not JSON") from error
        if not isinstance(body, dict):
            raise SqlError(f"{message.topic}: the payload is not a JSON object")
        if not all(test(message, body) for test in self._tests):
            return None
        selected: dict[str, Any] = {}
        for name, value in self._items:
            if name == "*":
                selected |= body
            elif (found := value(message, body)) is not None:
                selected[name] = found
        return selected


def matches(topic_filter: str, topic: str) -> bool:
    """MQTT's topic filters: `+` is one level, a trailing `#` the rest; none of both begins a `$` topic."""
    if topic.startswith("$") and topic_filter[0] in "+#":
        return False
    wanted, given = topic_filter.split("/"), topic.split("/")
    if wanted[-1] == "#":
        wanted, given = wanted[:-1], given[: len(wanted) - 1]
    return len(wanted) == len(given) and all(w in ("+", g) for w, g in zip(wanted, given, strict=True))


def _item(text: str) -> tuple[str, Callable[[Message, dict[str, Any]], Any]]:
    item = _ITEM.fullmatch(text.strip())
    if item is None:
        raise SqlError(f"not understood: {text.strip()}")
    source, level, name = item[1].lower(), item[2], item[3]
    if source == "clientid()":
        return name or "clientid", lambda message, _: message.client_id
    if source == "timestamp()":
        return name or "timestamp", lambda *_: int(time.time() * 1000)
    if level is not None:
        return name or "topic", lambda message, _: _level(message.topic, level)
    return name or item[1], lambda _, body: _field(body, item[1])


def _level(topic: str, level: str) -> str | None:
    levels = topic.split("/")
    if not level:
        return topic
    return levels[int(level) - 1] if int(level) <= len(levels) else None


def _test(text: str) -> Callable[[Message, dict[str, Any]], bool]:
    if undefined := _UNDEFINED.fullmatch(text.strip()):
        return lambda _, body: not _defined(body, undefined[1])
    if begins := _STARTS.fullmatch(text.strip()):
        _, value = _item(begins[1])
        return lambda message, body: str(value(message, body) or "").startswith(begins[3])
    test = _TEST.fullmatch(text.strip())
    if test is None:
        raise SqlError(f"not understood: {text.strip()}")
    literal = test[3][1:-1] if test[3].startswith("'") else json.loads(test[3].lower())
    return lambda _, body: (_field(body, test[1]) == literal) == (test[2] == "=")


def _defined(body: Any, path: str) -> bool:
    """Whether a field is there; null is a value."""
    *parents, name = path.split(".")
    holder = _field(body, ".".join(parents)) if parents else body
    return isinstance(holder, dict) and name in holder


def _field(body: Any, path: str) -> Any:
    for part in path.split("."):
        body = body.get(part) if isinstance(body, dict) else None
    return body
