"""What is in a queue, and somebody who takes its items or says why not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeml.drainer import Drainer
from edgeml.errors import IpcError
from edgeml.problems import Problems
from edgeml.spool import Item, Spool

MANY = 10**9


class Receiver:
    """Takes items; raises what `fault` gives. Thread-safe enough: one drainer calls it."""

    def __init__(self, fault: Callable[[Item], Exception | None] = lambda item: None) -> None:
        self.taken: list[tuple[str, bytes]] = []
        self.asked: list[tuple[str, bytes]] = []
        self.fault = fault

    def __call__(self, item: Item) -> None:
        self.asked.append((item.topic, item.payload))
        if error := self.fault(item):
            raise error
        self.taken.append((item.topic, item.payload))


def payloads(spool: Spool) -> list[bytes]:
    return [item.payload for item in spool.peek(MANY)]


def at_once(failures: int) -> float:
    return 0.0


def drained(spool: Spool, receiver: Receiver, backoff: Callable[[int], float] = at_once) -> Drainer:
    return Drainer(spool, receiver, transient=(IpcError,), backoff=backoff)


def notes(spool: Spool) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in sorted(spool.refusals.quarantine.folder.glob("*.json"))]


def codes(problems: Problems) -> set[tuple[str, str]]:
    return {(problem.code, problem.subject) for problem in problems.current()}


def boxed(path: Path, problems: Problems) -> Spool:
    return Spool(path, max_bytes=1_000_000, problems=problems, subject="box")
