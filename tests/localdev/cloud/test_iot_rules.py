import json
from typing import Any

import pytest

from localdev.cloud.iot_rules import Message, Query, SqlError, matches


def run(sql: str, body: Any, topic: str = "device/t7/logs") -> dict[str, Any] | None:
    return Query(sql).run(Message(topic, json.dumps(body).encode(), "client-1"))


@pytest.mark.parametrize(
    ("sql", "selected"),
    [
        ("SELECT * FROM 'device/+/logs'", {"a": 1, "b": {"c": "x"}}),
        ("select *, clientid() as who from 'device/#'", {"a": 1, "b": {"c": "x"}, "who": "client-1"}),
        ("SELECT a, b.c AS c FROM 'device/+/logs'", {"a": 1, "c": "x"}),
        ("SELECT topic() AS t, topic(2) AS thing, topic(9) AS none FROM '#'", {"t": "device/t7/logs", "thing": "t7"}),
        ("SELECT missing FROM '#'", {}),
        ("SELECT a FROM '#' WHERE a = 1 AND b.c <> 'y'", {"a": 1}),
        ("SELECT a FROM '#' WHERE a = 2", None),
        ("SELECT a FROM '#' WHERE b.c = 'x' AND a != 1", None),
        ("SELECT a FROM '#' WHERE isUndefined(c)", {"a": 1}),
        ("SELECT a FROM '#' WHERE ISUNDEFINED( b.x ) AND isUndefined(a.x) AND a = 1", {"a": 1}),
        ("SELECT a FROM '#' WHERE isUndefined(b.c)", None),
        ("SELECT a FROM '#' WHERE isUndefined(a) AND isUndefined(c)", None),
        ("SELECT * FROM 'device/+/other'", None),
    ],
)
def test_select(sql: str, selected: dict[str, Any] | None) -> None:
    assert run(sql, {"a": 1, "b": {"c": "x"}}) == selected


def test_null_is_not_undefined() -> None:
    assert run("SELECT * FROM '#' WHERE isUndefined(a)", {"a": None}) is None


def test_timestamp_is_now_in_milliseconds() -> None:
    selected = run("SELECT timestamp() AS at FROM '#'", {})
    assert selected is not None
    assert selected["at"] > 1.7e12


@pytest.mark.parametrize(
    "sql",
    [
        "GARBAGE",
        "SELECT * FROM device",
        "SELECT avg(x) FROM 'a'",
        "SELECT * FROM 'a' WHERE x > 3",
        "SELECT * FROM 'a' WHERE isUndefined()",
        "SELECT FROM 'a'",
    ],
)
def test_sql_that_is_not_understood_is_an_error(sql: str) -> None:
    with pytest.raises(SqlError, match="not understood"):
        Query(sql)


@pytest.mark.parametrize("payload", [b"text", b"[1]", b"3", b"\xff"])
def test_a_payload_that_is_no_object_is_an_error(payload: bytes) -> None:
    with pytest.raises(SqlError, match=r"not .*JSON"):
        Query("SELECT * FROM 'a'").run(Message("a", payload, "c"))


@pytest.mark.parametrize(
    ("topic_filter", "topic", "matched"),
    [
        ("device/+/logs", "device/a/logs", True),
        ("device/+/logs", "device/a/b/logs", False),
        ("device/+/logs", "devices/a/logs", False),
        ("device/#", "device/a/b", True),
        ("#", "a", True),
        ("+", "a/b", False),
        ("a/b", "a/b", True),
        ("#", "$aws/events/presence/connected/a", False),
        ("+/events/#", "$aws/events/presence/connected/a", False),
        ("$aws/events/presence/+/a", "$aws/events/presence/connected/a", True),
    ],
)
def test_topic_filters(topic_filter: str, topic: str, matched: bool) -> None:
    assert matches(topic_filter, topic) is matched
