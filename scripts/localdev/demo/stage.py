"""What a stage of the demo is, and the world it runs in."""

import math
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from localdev.cloud import LocalCloud
from localdev.core import LocalCore

Configuration = dict[str, dict[str, Any]]  # package -> configuration to merge
THING = "laptop"


class Evidence(msgspec.Struct):
    """What a stage has to show: `figures` go to the summary and to --json, `missing` says what is not there."""

    ok: bool
    figures: dict[str, Any] = {}
    missing: str = ""


@dataclass
class World:
    """What stages meet: the clouds, the core (from `begin` on), a folder for what they make, and the clip's path."""

    cloud: LocalCloud
    output: Path
    core: LocalCore = field(init=False)
    listeners: list[Callable[[], None]] = field(default_factory=list)

    def hear(self, topic: str, handler: Callable[[str, bytes], None]) -> None:
        """Call `handler(topic, payload)` for local messages until the demo ends. It runs on the core's thread."""
        self.listeners.append(self.core.subscribe(topic, handler))


class Stage:
    """One part of the demo. Methods are called in this order; `progress` and `evidence` as often as needed."""

    name: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, world: World) -> None:
        self.world = world

    def prepare(self) -> None:
        """Fetch and make what is needed, before the deployment."""

    def configuration(self) -> Configuration:
        """The components this stage needs, by package, with their configuration; stages' configurations are merged."""
        return {}

    def begin(self) -> None:
        """The components run: listen, feed, ask."""

    def progress(self) -> str:
        """One line for the live display."""
        return ""

    def finish(self) -> None:
        """The time is over, the components still run: ask what can only be asked at the end, draw pictures."""

    def evidence(self) -> Evidence:
        raise NotImplementedError

    def end(self) -> None:
        """Let go of everything `begin` took. Called whatever happened."""


class Window:
    """Counts and recent values, from any thread."""

    def __init__(self, size: int = 5000) -> None:
        self._lock = threading.Lock()
        self._values: deque[float] = deque(maxlen=size)
        self.count = 0

    def add(self, value: float) -> None:
        with self._lock:
            self._values.append(value)
            self.count += 1

    def mean(self) -> float:
        """Mean of the recent values; NaN without any."""
        with self._lock:
            return sum(self._values) / len(self._values) if self._values else math.nan

    def percentile(self, percent: float) -> float:
        """Nearest-rank percentile of the recent values; NaN without any."""
        with self._lock:
            ordered = sorted(self._values)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else math.nan


def merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """`second` over `first`, objects key by key."""
    result = dict(first)
    for key, value in second.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result
