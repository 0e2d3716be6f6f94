"""Topic filters of local pub/sub and of MQTT.

Local pub/sub of the Java nucleus splits on `/` as Java does, so that trailing empty levels do not count, and `a/#`
wants at least one level below `a`; a `#` before other levels stands for one level. Source: SubscriptionTrie of
aws-greengrass-nucleus. Nucleus Lite matches as MQTT does, where `a/#` also matches `a` and `$` is nothing special.
"""

from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


def split_levels(topic: str) -> list[str]:
    """Levels of a local topic: `a/b//` has two."""
    levels = topic.split("/")
    if topic:
        while levels and not levels[-1]:
            levels.pop()
    return levels


def has_wildcard(topic_filter: str) -> bool:
    """Whether a filter holds a valid MQTT wildcard: `+` as a whole level, or `#` as the last one."""
    levels = split_levels(topic_filter)
    return "+" in levels or levels[-1:] == ["#"]


def is_mqtt_filter(topic_filter: str) -> bool:
    """Whether a broker takes a filter: `+` and `#` are whole levels, `#` is the last one."""
    levels = topic_filter.split("/")
    return (
        bool(topic_filter)
        and "\0" not in topic_filter
        and "#" not in levels[:-1]
        and all(len(level) == 1 or not {"+", "#"} & set(level) for level in levels)
    )


def mqtt_matches(topic_filter: str, topic: str) -> bool:
    """MQTT 3.1.1 matching: `a/#` matches `a` too; a leading wildcard does not match `$` topics."""
    return not (topic.startswith("$") and topic_filter[:1] in ("+", "#")) and plainly_matches(topic_filter, topic)


def plainly_matches(topic_filter: str, topic: str) -> bool:
    """MQTT matching in which `$` is nothing special; an invalid filter matches its own text only."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if not is_mqtt_filter(topic_filter):
        return topic_filter == topic
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(levels) or level not in ("+", levels[index]):
            return False
    return len(wanted) == len(levels)


def covers(wide: str, narrow: str) -> bool:
    """Whether every topic of one MQTT filter is one of another."""
    levels = narrow.split("/")
    for index, level in enumerate(wide.split("/")):
        if level == "#":
            return True
        if index >= len(levels) or (level != levels[index] and (level != "+" or levels[index] == "#")):
            return False
    return wide.count("/") == narrow.count("/")


class TopicTrie(Generic[T]):
    """Subscribers by topic filter. Within one filter they keep the order in which they came."""

    def __init__(self) -> None:
        self._children: dict[str, TopicTrie[T]] = {}
        self._subscribers: dict[T, None] = {}

    def add(self, topic_filter: str, subscriber: T) -> None:
        """Adds a subscriber; a second time under one filter has no effect."""
        node = self
        for level in split_levels(topic_filter):
            node = node._children.setdefault(level, TopicTrie())
        node._subscribers[subscriber] = None

    def remove(self, topic_filter: str, subscriber: T) -> None:
        """Removes a subscriber that `add` took under the same filter; one that is gone already is no error."""
        path: list[tuple[TopicTrie[T], str]] = []
        node = self
        for level in split_levels(topic_filter):
            if level not in node._children:
                return
            path.append((node, level))
            node = node._children[level]
        node._subscribers.pop(subscriber, None)
        for parent, level in reversed(path):
            if parent._children[level]:
                break
            del parent._children[level]

    def __bool__(self) -> bool:
        """Whether it holds anything."""
        return bool(self._children or self._subscribers)

    def matches(self, topic: str) -> Iterator[T]:
        """The subscribers of every filter that matches `topic`."""
        return self._walk(split_levels(topic), 0)

    def _walk(self, levels: list[str], depth: int) -> Iterator[T]:
        if depth == len(levels):
            yield from self._subscribers
            return
        rest = self._children.get("#")
        if rest is not None and depth + 1 < len(levels):
            yield from rest._subscribers
        for level in dict.fromkeys((levels[depth], "+", "#")):
            child = self._children.get(level)
            if child is not None:
                yield from child._walk(levels, depth + 1)


class FlatFilters(Generic[T]):
    """Subscribers by topic filter, as Nucleus Lite keeps them: one list."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, T], None] = {}

    def add(self, topic_filter: str, subscriber: T) -> None:
        """Adds a subscriber; a second time under one filter has no effect."""
        self._entries[topic_filter, subscriber] = None

    def remove(self, topic_filter: str, subscriber: T) -> None:
        """Removes a subscriber that `add` took under the same filter; one that is gone already is no error."""
        self._entries.pop((topic_filter, subscriber), None)

    def matches(self, topic: str) -> Iterator[T]:
        """The subscribers of every filter that matches `topic`."""
        return (who for topic_filter, who in list(self._entries) if plainly_matches(topic_filter, topic))
