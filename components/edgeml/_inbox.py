"""Between whoever receives messages and their handlers: one bounded queue, one thread."""

import logging
import queue
import threading
from collections.abc import Callable

from edgeml.log import kv

log = logging.getLogger("edgeml.ipc")

Handler = Callable[[str, bytes], None]  # topic, payload

INBOX = 1000  # received messages not yet handled


class Inbox:
    """One bounded queue and one thread between whoever receives messages and their handlers."""

    def __init__(self) -> None:
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
            if self.dropped & (self.dropped - 1) == 0:  # 1, 2, 4, 8 ...: a flood must not flood the log as well
                log.warning("inbox full, message dropped %s", kv(topic=topic, dropped=self.dropped))

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            handler, topic, payload = item
            try:
                handler(topic, payload)
            except Exception:  # one message that a handler cannot stand must not end the handling of all others
                log.exception("handler failed %s", kv(topic=topic))

    def close(self) -> None:
        try:
            self._queue.put(None, timeout=1)
        except queue.Full:
            return  # the thread is a daemon and a handler hangs: the process is about to end anyway
        self._thread.join(timeout=2)
