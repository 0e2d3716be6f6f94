"""What a component is and what it is given: edgeml.component.Component and Context."""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from edgeml._worker import Worker, Workers
from edgeml.health import Health
from edgeml.ipc import Ipc

C = TypeVar("C")


@dataclass
class Context:
    """What a component is given: its connection, its health, where it may write, and when it must stop."""

    ipc: Ipc
    health: Health
    work: Path  # the component's own work folder
    root: Path  # the core's root folder, under which other components' work folders lie
    thing_name: str
    stopping: threading.Event = field(default_factory=threading.Event)
    events: "queue.SimpleQueue[str | BaseException]" = field(default_factory=queue.SimpleQueue)  # that run() waits for

    def fail(self, error: BaseException) -> None:
        """End the process with an error, so that the core starts it anew. Any thread may call it.

        For what only a new process can cure: the connection to the core is lost, threads hang in a driver.
        """
        self.events.put(error)

    def __post_init__(self) -> None:
        self.workers = Workers(self.health, self.stopping, self.fail)

    def spawn(self, name: str, work: Callable[[], None], *, again: bool = True) -> threading.Thread:
        """Run `work` on a daemon thread; an unexpected exception is told and `work` run again (edgeml._worker).

        `again=False` for the work of one request, which is not to be repeated. Whoever stops a part first tells its
        work to end, then joins: a joined worker is not run again.
        """
        worker = Worker(name, work, self.workers, again=again)
        worker.start()
        return worker


class Component(Generic[C]):
    """Base of all components. Constructors do no I/O; `start` may raise EdgemlError, which ends the process."""

    name: ClassVar[str]
    version: ClassVar[str]

    def __init__(self, context: Context) -> None:
        self.context = context

    def start(self, config: C) -> None:
        raise NotImplementedError

    def reconfigure(self, config: C) -> None:
        """Take over a changed, valid configuration while running."""
        raise NotImplementedError

    def stop(self) -> None:
        """Stop taking work, finish what is in hand, flush. Must return within four seconds."""
        raise NotImplementedError
