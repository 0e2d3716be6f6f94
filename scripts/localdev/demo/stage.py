"""What a stage of the demo is, and the world it runs in."""

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from localdev.cloud import LocalCloud
from localdev.core import LocalCore
from localdev.demo.observer import Observer

Configuration = dict[str, dict[str, Any]]  # package -> configuration to merge
THING = "laptop"
SIGNING_KEY = "edgeml/model-signing-key"  # a secret of the cloud, by name


class Evidence(msgspec.Struct):
    """What a stage has to show: `figures` go to the summary and to --json, `missing` says what is not there."""

    ok: bool
    figures: dict[str, Any] = {}
    missing: str = ""


@dataclass
class World:
    """What stages meet: the cloud, the core and its root folder, a folder for what they make, one for frame rings.

    The core is there from `begin` on.
    """

    cloud: LocalCloud
    root: Path
    output: Path
    rings: Path
    iot: Observer
    core: LocalCore = field(init=False)
    secrets: dict[str, str] = field(default_factory=dict)  # of aws.greengrass.SecretManager, put there by `prepare`

    def hear(self, topic: str, handler: Callable[[str, bytes], None]) -> None:
        """Call `handler(topic, payload)` for local messages until the demo ends. It runs on the core's thread."""
        self.core.subscribe(topic, handler)

    @cached_property
    def outputs(self) -> dict[str, str]:
        """The outputs of the cloud's template."""
        assert self.cloud.stack is not None  # noqa: S101  (the demo's cloud has one)
        return self.cloud.stack.outputs


class Stage:
    """One part of the demo. Methods are called in this order; `progress` and `evidence` as often as needed."""

    name: ClassVar[str]
    title: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()  # stages without which this one has nothing to show

    def __init__(self, world: World) -> None:
        self.world = world

    def prepare(self) -> None:
        """Fetch and make what is needed, before the deployment."""

    def configuration(self) -> Configuration:
        """The components this stage needs, by package, with their configuration; stages' configurations are merged."""
        return {}

    def begin(self) -> None:
        """The components run: listen, feed, ask."""

    def tick(self) -> None:
        """Called a few times a second while the time runs: ask, feed, look."""

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
        """Mean of the recent values; 0 without any."""
        with self._lock:
            return sum(self._values) / len(self._values) if self._values else 0.0

    def percentile(self, percent: float) -> float:
        """Nearest-rank percentile of the recent values; 0 without any."""
        with self._lock:
            ordered = sorted(self._values)
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


def merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """`second` over `first`, objects key by key."""
    result = dict(first)
    for key, value in second.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result
