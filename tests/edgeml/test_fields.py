"""Topics and keys: what AWS takes is allowed, and what is just beyond is refused in words."""

import pytest

from edgeml.errors import ConfigError
from edgeml.fields import MAX_KEY_BYTES, MAX_SLASHES, MAX_TOPIC_BYTES, check_key, check_topic, topic_problem

RULE = "$aws/rules/a_rule/"


@pytest.mark.parametrize("head", ["", RULE], ids=["plain", "basic ingest"])
@pytest.mark.parametrize(
    ("topic", "problem"),
    [
        ("a", ""),
        ("a" * (MAX_TOPIC_BYTES - 1), ""),
        ("a" * MAX_TOPIC_BYTES, ""),
        ("a" * (MAX_TOPIC_BYTES + 1), "expected at most 256 bytes, found 257"),
        ("ü" * (MAX_TOPIC_BYTES // 2), ""),
        ("ü" * (MAX_TOPIC_BYTES // 2) + "a", "expected at most 256 bytes, found 257"),
        ("/" * (MAX_SLASHES - 1), ""),
        ("/" * MAX_SLASHES, ""),
        ("/" * (MAX_SLASHES + 1), "expected at most 7 slashes, found 8"),
        ("a/+", "expected no wildcards"),
        ("a\0", "expected no wildcards"),
    ],
    ids=range(11),
)
def test_topics_have_so_many_bytes_and_slashes(head: str, topic: str, problem: str) -> None:
    """A rule of basic ingest does not count."""
    found = topic_problem(head + topic)
    assert found.startswith(problem) and bool(found) == bool(problem)
    if problem:
        with pytest.raises(ConfigError, match=r"sinks\.topic: expected"):
            check_topic("sinks.topic", head + topic)
    else:
        assert check_topic("sinks.topic", head + topic) == head + topic


def test_no_topic_is_none() -> None:
    assert topic_problem("") == "expected a topic, found none"


@pytest.mark.parametrize("letter", ["a", "ü"])
def test_keys_have_so_many_bytes(letter: str) -> None:
    size = len(letter.encode())
    for length in (0, 1, (MAX_KEY_BYTES - 2) // size - 1, (MAX_KEY_BYTES - 2) // size):
        check_key("s3_prefix", letter * length, "x")
    with pytest.raises(ConfigError, match=r"s3_prefix: expected keys of at most 1024 bytes"):
        check_key("s3_prefix", letter * ((MAX_KEY_BYTES - 2) // size + 1), "x")
