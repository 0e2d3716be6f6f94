"""Messages to IoT Core that wait on disk, in order, until the core has taken them."""

from pathlib import Path

from edgeml.errors import IpcError, UnauthorizedError, Undeliverable
from edgeml.health import Health
from edgeml.ipc import Ipc
from edgeml.spool import Drainer, Item, Spool

CLOSE_TIMEOUT_S = 1.0


class Outbox:
    """`send` returns when the message is on disk. Raises SpoolError, when made too. Thread-safe."""

    def __init__(self, path: Path, ipc: Ipc, health: Health, *, max_bytes: int, qos: int = 1) -> None:
        self._ipc, self._health, self._qos = ipc, health, qos
        self._spool = Spool(path, max_bytes=max_bytes)
        self._drainer = Drainer(self._spool, self._deliver, transient=(IpcError,))
        health.gauge("outbox.waiting", lambda: float(self._spool.depth))
        health.gauge("outbox.dropped", lambda: float(self._spool.dropped))

    def send(self, topic: str, payload: bytes, *, qos: int | None = None) -> None:
        """Queue a message; `qos` is the outbox' own unless it is given."""
        self._spool.put(topic, payload, headers=None if qos is None else {"qos": str(qos)})

    def configure(self, *, max_bytes: int, qos: int) -> None:
        self._spool.max_bytes, self._qos = max_bytes, qos

    def close(self) -> None:
        """Send what can be sent now; the rest goes out after the next start."""
        self._drainer.stop(flush_timeout=CLOSE_TIMEOUT_S)
        self._spool.close()

    def _deliver(self, item: Item) -> None:
        if len(item.payload) > self._ipc.max_iot_bytes:  # put there under a core that takes more
            raise Undeliverable(f"{len(item.payload)} bytes, {self._ipc.max_iot_bytes} are allowed")
        try:
            self._ipc.publish_iot(item.topic, item.payload, qos=int(item.headers.get("qos", self._qos)))
        except UnauthorizedError as error:
            # A corrected configuration does not change the topic of what is queued: it must not block what follows.
            raise Undeliverable(str(error)) from error
        self._health.count("outbox.sent")
