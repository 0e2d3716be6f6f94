"""The one fake of Ipc: no core is behind it. It keeps what it is given; a test hands messages to `handlers`."""

import json
import struct
from collections.abc import Callable, Mapping
from typing import Any

from edgeml.ipc import Handler, StandaloneIpc, Subscription

# What nobody expects of a border, by a short name: each must cost one attempt there, and no more.
UNEXPECTED: Mapping[str, Callable[[], Exception]] = {
    "value": lambda: ValueError("x"),
    "type": lambda: TypeError("x"),
    "overflow": lambda: OverflowError("x"),
    "recursion": RecursionError,
    "unicode": lambda: UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates"),
    "memory": MemoryError,
    "io": lambda: OSError(5, "Input/output error"),
    "struct": lambda: struct.error("x"),
}


class FakeIpc(StandaloneIpc):
    """`crossed` is told of each call and its topic before it does anything, and may raise what the core would."""

    def __init__(
        self,
        crossed: Callable[[str, str], None] = lambda call, topic: None,
        *,
        max_iot_bytes: int = 128 << 10,
        secret: str = "",
    ) -> None:
        self.crossed, self.max_iot_bytes = crossed, max_iot_bytes
        self.local: list[tuple[str, bytes]] = []
        self.iot: list[tuple[str, bytes, int]] = []  # with the quality of service
        self.handlers: dict[str, Handler] = {}  # of what is subscribed to, local and IoT Core
        self._secret = secret

    def publish(self, topic: str, payload: bytes, *, wait: float = 10.0) -> None:
        self.crossed("publish", topic)
        self.local.append((topic, payload))

    def publish_iot(self, topic: str, payload: bytes, *, qos: int = 1) -> None:
        self.crossed("publish_iot", topic)
        self.iot.append((topic, payload, qos))

    def subscribe(self, topic: str, handler: Handler) -> Subscription:
        return self._heard("subscribe", topic, handler)

    def subscribe_iot(self, topic: str, handler: Handler, *, qos: int = 1) -> Subscription:
        return self._heard("subscribe_iot", topic, handler)

    def secret(self, secret_id: str) -> str:
        self.crossed("secret", secret_id)
        return self._secret

    def answers(self, ending: str) -> list[Any]:
        """What went to topics of IoT Core that end so."""
        return [json.loads(payload) for topic, payload, _ in self.iot if topic.endswith(ending)]

    def _heard(self, call: str, topic: str, handler: Handler) -> Subscription:
        self.crossed(call, topic)
        self.handlers[topic] = handler
        return Subscription(lambda received: None, handler, lambda: self._forget(topic, handler))

    def _forget(self, topic: str, handler: Handler) -> None:
        if self.handlers.get(topic) is handler:
            del self.handlers[topic]
