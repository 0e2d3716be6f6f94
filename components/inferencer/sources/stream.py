"""Messages that arrive by themselves, on their way to a pipeline."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from edgeml.messages import SampleRef
from inferencer.parts import SampleSource
from inferencer.payloads import MAX_MESSAGE_BYTES, numbers
from inferencer.sample import Sample

if TYPE_CHECKING:
    from edgeml.component import Context


class StreamSamples(SampleSource):
    """The last `limit` messages between whoever receives them and the pipeline; beyond that the oldest are dropped."""

    def __init__(self, limit: int, context: Context, prefix: str) -> None:
        self._context, self._prefix = context, prefix
        self._health = context.health.scope(prefix)
        self._messages: deque[tuple[int, float, str, bytes]] = deque(maxlen=limit)
        self._arrived = threading.Condition()
        self._health.gauge("messages_waiting", lambda: float(len(self._messages)))

    def received(self, topic: str, payload: bytes) -> None:
        """Takes a message. Never blocks."""
        if len(payload) > MAX_MESSAGE_BYTES:
            self._health.count("messages_refused")
            self._health.error(f"{topic}: {len(payload)} bytes, {MAX_MESSAGE_BYTES} are allowed")
            return
        with self._arrived:
            if len(self._messages) == self._messages.maxlen:
                self._health.count("messages_dropped")
            self._messages.append((time.monotonic_ns(), time.time(), topic, payload))
            self._arrived.notify()

    def next(self, timeout: float) -> Sample | None:
        with self._arrived:
            if not self._arrived.wait_for(lambda: self._messages, timeout):
                return None
            arrived_ns, at, topic, payload = self._messages.popleft()
        return Sample(data=numbers(payload), source=SampleRef(topic=topic, captured_at=at), arrived_ns=arrived_ns)
