"""Between whoever receives messages and their handlers: one bounded queue, one thread."""

import logging
import queue
import threading
import traceback
from collections.abc import Callable

from edgeml.health import Health
from edgeml.log import kv
from edgeml.pace import Throttle

log = logging.getLogger("edgeml.ipc")

Handler = Callable[[str, bytes], None]  # topic, payload

INBOX = 1000  # received messages not yet handled


class Inbox:
    """One bounded queue and one thread between whoever receives messages and their handlers."""

    def __init__(self, health: Health | None = None) -> None:
        self._health = health
        self._overflow = Throttle()
        self._known: dict[tuple[type[Exception], str, int], Throttle] = {}  # by place in the code: a bounded number
        self._queue: queue.Queue[tuple[Handler, str, bytes] | None] = queue.Queue(INBOX)
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="ipc-inbox", daemon=True)
        self._thread.start()

    def put(self, handler: Handler, topic: str, payload: bytes) -> None:
        """Never blocks: the network thread must go on. What does not fit is dropped, counted and logged."""
        try:
            self._queue.put_nowait((handler, topic, payload))
        except queue.Full:
            self.dropped += 1
            if self._overflow.due():
                log.warning("inbox full, message dropped %s", kv(topic=topic, dropped=self.dropped))

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            handler, topic, payload = item
            try:
                handler(topic, payload)
            except Exception as error:  # noqa: BLE001  (one message must not end the handling of all others)
                self._failed(topic, error)

    def _failed(self, topic: str, error: Exception) -> None:
        place = traceback.extract_tb(error.__traceback__)[-1]
        throttle = self._known.setdefault((type(error), place.filename, place.lineno or 0), Throttle())
        if throttle.due():
            log.error("handler failed %s", kv(topic=topic, times=throttle.count), exc_info=error)
        if self._health is not None:
            self._health.count("messages.failed")
            self._health.error(f"{topic}: {error!r}")

    def close(self) -> None:
        try:
            self._queue.put(None, timeout=1)
        except queue.Full:
            return  # the thread is a daemon and a handler hangs: the process is about to end anyway
        self._thread.join(timeout=2)
