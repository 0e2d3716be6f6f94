"""Threads whose unexpected errors are contained: edgeml.component.Context.spawn."""

import logging
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

from edgeml.backoff import Backoff
from edgeml.errors import DisconnectedError
from edgeml.health import Health
from edgeml.log import kv

log = logging.getLogger("edgeml.component")

FIRST_S, FLOOR_S, CEILING_S = 1.0, 0.1, 60.0  # pauses before a worker that failed is run again
WELL_S = 60.0  # a worker that ran so long after a failure is well again


@dataclass
class Workers:
    """What the workers of one process share: where failures are told, and when to give up."""

    health: Health
    stopping: threading.Event
    fail: Callable[[BaseException], None]
    first_s: float = FIRST_S
    floor_s: float = FLOOR_S
    ceiling_s: float = CEILING_S
    well_s: float = WELL_S
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _failed: "set[Worker]" = field(default_factory=set)

    def failed(self, worker: "Worker", text: str) -> None:
        with self._lock:
            self._failed.add(worker)
        self.health.problems.found("worker_failed", worker.name, text)

    def well(self, worker: "Worker") -> None:
        """Its problem is over, unless another worker of its name still has it."""
        with self._lock:
            if worker not in self._failed:
                return
            self._failed.discard(worker)
            others = any(other.name == worker.name for other in self._failed)
        if not others:
            self.health.problems.cleared("worker_failed", worker.name)

    def look(self) -> None:
        """To be called now and then: whoever runs well since its last failure is well."""
        with self._lock:
            failed = list(self._failed)
        for worker in failed:
            if worker.ran_s() > self.well_s:
                self.well(worker)


class Worker(threading.Thread):
    """Runs `work` until it returns. An exception that it lets through is counted, told, and `work` is run again.

    The pauses grow to a minute and begin anew after it ran well for one. Only a lost connection to the core ends
    the process: nothing else is cured by that, and it would take all other cameras, ports and pipelines with it.
    `again=False` is for work that answers one request: it is not repeated, and no problem is left.
    """

    def __init__(self, name: str, work: Callable[[], None], workers: Workers, *, again: bool = True) -> None:
        super().__init__(name=name, daemon=True)
        self._work, self._workers, self._again = work, workers, again
        self._awaited = threading.Event()
        self._began: float | None = None
        self._known: object = None

    def ran_s(self) -> float:
        """Seconds since `work` was begun the last time; 0 while it waits for its next attempt."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    def join(self, timeout: float | None = None) -> None:
        """As of any thread. Whoever waits for its end has told it to end: from now on it is not run again."""
        self._awaited.set()
        super().join(timeout)

    def run(self) -> None:
        backoff = Backoff(self._workers.first_s, self._workers.ceiling_s, self._workers.floor_s)
        try:
            while not self._attempt(backoff):
                self._wait(backoff.next())
                if self._awaited.is_set() or self._workers.stopping.is_set():
                    return
        finally:
            self._workers.well(self)

    def _attempt(self, backoff: Backoff) -> bool:
        """Whether `work` is done."""
        self._began = time.monotonic()
        try:
            self._work()
        except DisconnectedError as error:
            self._workers.fail(error)
        except Exception as error:  # noqa: BLE001  (what nobody expected: this worker's fault, nobody else's)
            if self.ran_s() > self._workers.well_s:
                backoff.reset()
            self._tell(error)
            return not self._again
        except BaseException as error:  # SystemExit and its like are meant for the process
            log.exception("thread %s ended the process", self.name)
            self._workers.fail(error)
        finally:
            self._began = None
        return True

    def _tell(self, error: Exception) -> None:
        self._workers.health.count("workers.failed")
        self._workers.health.error(f"{self.name}: {error}")
        place = traceback.extract_tb(error.__traceback__)[-1]
        known, self._known = self._known, (type(error), place.filename, place.lineno)
        if self._known != known:  # the same again has nothing new in its traceback
            log.error("worker failed %s", kv(worker=self.name, error=repr(error)), exc_info=error)
        if self._again:
            self._workers.failed(self, f"{type(error).__name__}: {error}")

    def _wait(self, pause: float) -> None:
        """`pause` seconds, or until somebody awaits the end. All who stop a component's parts await their ends."""
        end = time.monotonic() + pause
        while (left := end - time.monotonic()) > 0 and not self._workers.stopping.is_set():
            if self._awaited.wait(min(left, 0.5)):
                return
