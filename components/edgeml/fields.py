"""Types of configuration fields that several components share: what can never work is refused as configuration."""

import re
from typing import Annotated

from msgspec import Meta

from edgeml.errors import ConfigError

# `$` alone also matches before a last line feed, hence `(?!\n)`: JSON Schema's `$` does not, and both read these.
# AWS IoT Core: at most 7 slashes and 256 bytes; a publish may not hold wildcards. {placeholders} are allowed.
# Basic ingest, $aws/rules/<rule>/, does not count.
_TOPIC = r"^(\$aws/rules/[^/+#\x00]+/)?[^/+#\x00]*(/[^/+#\x00]*){0,7}$(?!\n)"
MAX_TOPIC_BYTES, MAX_SLASHES = 256, 7
MAX_KEY_BYTES = 1024  # of an object in Amazon S3
_BASIC_INGEST = re.compile(r"\$aws/rules/[^/]+/")

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,48}$(?!\n)")]
Topic = Annotated[str, Meta(min_length=1, max_length=256, pattern=_TOPIC)]
TopicOrNone = Annotated[str, Meta(max_length=256, pattern=_TOPIC)]  # empty: the default, or none
# Amazon S3: 3 to 63 characters, lower case; empty where nothing is uploaded.
BucketOrNone = Annotated[str, Meta(pattern=r"^([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])?$(?!\n)")]
KeyPrefix = Annotated[str, Meta(max_length=512, pattern=r"^([^/\x00-\x1f]+(/[^/\x00-\x1f]+)*)?$(?!\n)")]
# Printable ASCII: a blank or a control character can never be asked for, it is written as %XX.
HttpUrl = Annotated[str, Meta(max_length=2048, pattern=r"^https?://[!-~]+$(?!\n)")]
ClockWait = Annotated[
    float,
    Meta(ge=0, le=86400, description="Seconds after boot that what carries a time waits for a clock that is not set"),
]


def topic_problem(topic: str) -> str:
    """Why AWS IoT Core can never take a message on `topic`, with nothing left to replace in it; empty if it can."""
    counted = _BASIC_INGEST.sub("", topic, count=1) if topic.startswith("$aws/rules/") else topic
    try:
        size = len(counted.encode())
    except UnicodeEncodeError:
        return "expected text, found half a character (a surrogate)"
    if not topic:
        return "expected a topic, found none"
    if any(letter in topic for letter in "+#\0"):
        return "expected no wildcards (+, #) and no NUL"
    if counted.count("/") > MAX_SLASHES:
        return f"expected at most {MAX_SLASHES} slashes, found {counted.count('/')}"
    if size > MAX_TOPIC_BYTES:
        return f"expected at most {MAX_TOPIC_BYTES} bytes, found {size}"
    return ""


def check_key(path: str, prefix: str, rest: str) -> None:
    """Raises ConfigError if `<prefix>/<rest>`, the longest there will be, is no key that Amazon S3 can take."""
    if (size := len(f"{prefix}/{rest}".encode(errors="replace"))) > MAX_KEY_BYTES:
        raise ConfigError(path, f"expected keys of at most {MAX_KEY_BYTES} bytes, found {size}, in {prefix[:80]!r}")


def check_topic(path: str, topic: str) -> str:
    """`topic`, expanded from what the configuration has at `path`. Raises ConfigError if it can never work."""
    if problem := topic_problem(topic):
        raise ConfigError(path, f"{problem}, in {topic[:300]!r}")
    return topic
