"""What is written to a disk, by one thread per pipeline: a disk's pace is not the pipeline's."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from edgeml.errors import EdgemlError
from edgeml.log import kv
from edgeml.pace import Throttle

if TYPE_CHECKING:
    from edgeml.component import Context

log = logging.getLogger(__name__)

QUEUE = 64  # results on their way to disk, per pipeline
MAX_BYTES = 64 << 20  # of pictures among them; one may have more


class Writer:
    """Calls what it is given, one after the other. What fails is counted, and costs no other."""

    def __init__(self, pipeline: str, context: Context) -> None:
        self._pipeline, self._health = pipeline, context.health.scope(f"pipelines.{pipeline}")
        self._failures = Throttle()
        self._queue: queue.Queue[tuple[Callable[[], None], int] | None] = queue.Queue(QUEUE)
        self._room, self._held = threading.Condition(), 0  # bytes
        self._health.gauge("store_queue", lambda: float(self._queue.qsize()))
        self._thread = context.spawn(f"store-{pipeline}", self._run)

    @property
    def full(self) -> bool:
        """Whether `put` would wait for the queue."""
        return self._queue.full()

    def put(self, write: Callable[[], None], size: int = 0) -> None:
        """`write` holds `size` bytes of pictures.

        Waits when the disk cannot keep up: the pipeline slows down instead of losing results.
        """
        if size:
            with self._room:
                self._room.wait_for(lambda: not self._held or self._held + size <= MAX_BYTES)
                self._held += size
        self._queue.put((write, size))

    def close(self) -> None:
        with contextlib.suppress(queue.Full):  # the disk hangs, and the thread does not keep the process alive
            self._queue.put(None, timeout=0.5)
        self._thread.join(timeout=0.5)

    def _run(self) -> None:
        while (found := self._queue.get()) is not None:
            write, size = found
            try:
                write()
            except Exception as error:
                self._health.count("not_stored")
                self._health.error(error)
                if self._failures.due():
                    unexpected = None if isinstance(error, EdgemlError) else error
                    facts = kv(pipeline=self._pipeline, error=error, count=self._failures.count)
                    log.error("result not stored %s", facts, exc_info=unexpected)
            del found, write
            if size:
                with self._room:
                    self._held -= size
                    self._room.notify_all()
