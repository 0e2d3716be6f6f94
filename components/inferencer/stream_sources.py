"""Numbers that arrive by themselves: on a local topic, or from a local MQTT broker."""

import json
import logging
import queue
import time
from typing import Any

from edgeml.component import Context
from edgeml.errors import BackendError
from edgeml.log import kv
from edgeml.messages import Source
from inferencer.config import MqttSource
from inferencer.sample import Sample, Values

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
KEEPALIVE_S = 15
RECONNECT_MAX_S = 30


class StreamSamples:
    """A bounded queue between whoever receives messages and the pipeline."""

    def __init__(self, limit: int, context: Context, prefix: str) -> None:
        self._context, self._prefix = context, prefix
        self._queue: queue.Queue[tuple[int, float, str, bytes]] = queue.Queue(limit)
        context.health.gauge(f"{prefix}.messages_waiting", lambda: float(self._queue.qsize()))

    def received(self, topic: str, payload: bytes) -> None:
        """Takes a message; drops and counts it when the pipeline is that far behind."""
        try:
            self._queue.put_nowait((time.monotonic_ns(), time.time(), topic, payload))
        except queue.Full:
            self._context.health.count(f"{self._prefix}.messages_dropped")

    def next(self, timeout: float) -> Sample | None:
        try:
            arrived_ns, at, topic, payload = self._queue.get(timeout=timeout)
        except queue.Empty:
            return None
        return Sample(data=numbers(payload), source=Source(topic=topic, captured_at=at), arrived_ns=arrived_ns)

    def close(self) -> None:
        return


class MqttSamples(StreamSamples):
    """Messages of a topic of a local broker, reconnecting for ever."""

    def __init__(self, settings: MqttSource, context: Context, prefix: str) -> None:
        super().__init__(settings.queue, context, prefix)
        import paho.mqtt.client as mqtt
        from paho.mqtt.enums import CallbackAPIVersion

        self._settings = settings
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.connect_timeout = CONNECT_TIMEOUT_S
        self._client.reconnect_delay_set(1, RECONNECT_MAX_S)
        self._client.on_connect = self._connected
        self._client.on_disconnect = self._disconnected
        self._client.on_connect_fail = lambda client, data: self._waiting("cannot be reached")
        self._client.on_message = lambda client, data, message: self.received(message.topic, bytes(message.payload))
        if settings.tls:
            self._client.tls_set(ca_certs=settings.ca_file or None)
        if settings.user:
            secret = settings.password_secret
            self._client.username_pw_set(settings.user, context.ipc.secret(secret) if secret else None)
        self._waiting("not connected yet")
        self._client.connect_async(settings.host, settings.port, KEEPALIVE_S)
        self._client.loop_start()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _connected(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._waiting(f"refused: {reason}")
            return
        client.subscribe(self._settings.topic, self._settings.qos)
        self._context.health.note(f"{self._prefix}.broker", "")
        log.info("broker connected %s", kv(host=self._settings.host, port=self._settings.port))

    def _disconnected(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._context.health.count(f"{self._prefix}.broker_lost")
            self._waiting(f"lost: {reason}")

    def _waiting(self, why: str) -> None:
        where = f"{self._settings.host}:{self._settings.port}"
        self._context.health.note(f"{self._prefix}.broker", f"broker {where} {why}")
        log.info("broker %s", kv(host=self._settings.host, port=self._settings.port, state=why))


def numbers(payload: bytes) -> Values:
    """What a message holds: a JSON list or number, a JSON object of numbers, or comma-separated values.

    The numbers of a list are converted by the model that uses them. Raises BackendError.
    """
    if payload[:1] not in (b"[", b"{"):
        try:
            return payload.decode("ascii").strip().split(",")
        except UnicodeDecodeError as error:
            raise BackendError(f"expected numbers, got {payload[:40]!r}") from error
    try:
        found = json.loads(payload)
    except ValueError as error:
        raise BackendError(f"expected JSON, got {payload[:80]!r}: {error}") from error
    return features_of(found)


def features_of(found: Any) -> Values:
    """A list, or an object's `features`, or an object of numbers. Raises BackendError."""
    if isinstance(found, dict):
        found = found.get("features", found)
    if not isinstance(found, list | dict):
        raise BackendError(f"expected a list or an object of numbers, got {type(found).__name__}")
    return found
