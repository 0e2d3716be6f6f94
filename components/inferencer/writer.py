"""What is written to a disk, by one thread per pipeline: a disk's pace is not the pipeline's."""

from __future__ import annotations

import contextlib
import logging
import queue
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeml.errors import EdgemlError
from edgeml.log import kv
from edgeml.pace import Throttle

if TYPE_CHECKING:
    from edgeml.component import Context

log = logging.getLogger(__name__)

QUEUE = 64  # results on their way to disk, per pipeline


class Writer:
    """Calls what it is given, one after the other. What fails is counted, and costs no other."""

    def __init__(self, pipeline: str, context: Context) -> None:
        self._pipeline, self._health = pipeline, context.health.scope(f"pipelines.{pipeline}")
        self._failures = Throttle()
        self._queue: queue.Queue[Callable[[], None] | None] = queue.Queue(QUEUE)
        self._health.gauge("store_queue", lambda: float(self._queue.qsize()))
        self._thread = context.spawn(f"store-{pipeline}", self._run)

    def put(self, write: Callable[[], None]) -> None:
        """Waits when the disk cannot keep up: the pipeline slows down instead of losing results."""
        self._queue.put(write)

    def close(self) -> None:
        with contextlib.suppress(queue.Full):  # the disk hangs, and the thread does not keep the process alive
            self._queue.put(None, timeout=0.5)
        self._thread.join(timeout=0.5)

    def _run(self) -> None:
        while (write := self._queue.get()) is not None:
            try:
                write()
            except Exception as error:
                self._health.count("not_stored")
                self._health.error(error)
                if self._failures.due():
                    unexpected = None if isinstance(error, EdgemlError) else error
                    facts = kv(pipeline=self._pipeline, error=error, count=self._failures.count)
                    log.error("result not stored %s", facts, exc_info=unexpected)
