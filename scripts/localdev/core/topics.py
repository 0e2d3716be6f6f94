"""Topic filters of local pub/sub and of MQTT.

Local pub/sub splits on `/` as Java does, so that trailing empty levels do not count, and `a/#` wants at least one
level below `a`. Source: SubscriptionTrie of aws-greengrass-nucleus.
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


def mqtt_matches(topic_filter: str, topic: str) -> bool:
    """MQTT 3.1.1 matching: `a/#` matches `a` too; a leading wildcard does not match `$` topics."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for index, level in enumerate(wanted):
        if level == "#":
            return True
        if index >= len(levels) or level not in ("+", levels[index]):
            return False
    return len(wanted) == len(levels)


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
            if parent._children[level]._subscribers or parent._children[level]._children:
                break
            del parent._children[level]

    def matches(self, topic: str) -> Iterator[T]:
        """The subscribers of every filter that matches `topic`."""
        return self._walk(split_levels(topic), 0)

    def _walk(self, levels: list[str], depth: int) -> Iterator[T]:
        if depth == len(levels):
            yield from self._subscribers
            return
        rest = self._children.get("#")
        if rest is not None:
            yield from rest._subscribers
        for level in dict.fromkeys((levels[depth], "+")):
            child = self._children.get(level)
            if child is not None:
                yield from child._walk(levels, depth + 1)
