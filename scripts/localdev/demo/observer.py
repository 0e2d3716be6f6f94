"""An MQTT client of IoT Core that has nothing to do with the core or its components: what it hears has arrived."""

import threading
from collections.abc import Callable

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from localdev.mqtt_end import let_go

CONNECT_TIMEOUT_S = 10.0

Handler = Callable[[str, bytes], None]  # topic, payload


class Observer:
    """`hear` and `publish` until `close`. Handlers run on the client's thread, in the order of arrival."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._handlers: dict[str, list[Handler]] = {}  # by topic filter
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._message
        connected = threading.Event()
        self._client.on_connect = lambda *_: connected.set()
        self._client.connect(*address)
        self._client.loop_start()
        if not connected.wait(CONNECT_TIMEOUT_S):
            raise TimeoutError(f"no MQTT broker answers at {address}")

    def hear(self, topic_filter: str, handler: Handler) -> None:
        if topic_filter not in self._handlers:
            self._handlers[topic_filter] = []
            self._client.subscribe(topic_filter, qos=1)
        self._handlers[topic_filter].append(handler)

    def publish(self, topic: str, payload: bytes) -> None:
        self._client.publish(topic, payload, qos=1)

    def close(self) -> None:
        let_go(self._client)

    def _message(self, client: mqtt.Client, data: object, message: mqtt.MQTTMessage) -> None:
        for topic_filter, handlers in list(self._handlers.items()):
            if mqtt.topic_matches_sub(topic_filter, message.topic):
                for handler in handlers:
                    handler(message.topic, bytes(message.payload))
