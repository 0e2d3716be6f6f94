"""Numbers that arrive by themselves: on a local topic, or from a local MQTT broker."""

import json
import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from edgeml.component import Context
from edgeml.errors import BackendError, SourceError
from edgeml.log import kv
from edgeml.messages import Source
from edgeml.secrets import api_key
from inferencer.config import MqttSource
from inferencer.sample import Sample, Values

if TYPE_CHECKING:
    import paho.mqtt.client as mqtt

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 5.0
KEEPALIVE_S = 15
RECONNECT_MAX_S = 30


class StreamSamples:
    """The last `limit` messages between whoever receives them and the pipeline; beyond that the oldest are dropped."""

    def __init__(self, limit: int, context: Context, prefix: str) -> None:
        self._context, self._prefix = context, prefix
        self._messages: deque[tuple[int, float, str, bytes]] = deque(maxlen=limit)
        self._arrived = threading.Condition()
        context.health.gauge(f"{prefix}.messages_waiting", lambda: float(len(self._messages)))

    def received(self, topic: str, payload: bytes) -> None:
        """Takes a message. Never blocks."""
        with self._arrived:
            if len(self._messages) == self._messages.maxlen:
                self._context.health.count(f"{self._prefix}.messages_dropped")
            self._messages.append((time.monotonic_ns(), time.time(), topic, payload))
            self._arrived.notify()

    def next(self, timeout: float) -> Sample | None:
        with self._arrived:
            if not self._arrived.wait_for(lambda: self._messages, timeout):
                return None
            arrived_ns, at, topic, payload = self._messages.popleft()
        return Sample(data=numbers(payload), source=Source(topic=topic, captured_at=at), arrived_ns=arrived_ns)

    def close(self) -> None:
        return


class MqttSamples(StreamSamples):
    """Messages of a topic of a local broker, connected with the first question for a sample, reconnecting for ever."""

    def __init__(self, settings: MqttSource, limit: int, context: Context, prefix: str) -> None:
        super().__init__(limit, context, prefix)
        self._settings = settings
        self._client: mqtt.Client | None = None
        self._waiting("not connected yet")

    def next(self, timeout: float) -> Sample | None:
        if self._client is None:
            self._client = self._connecting()
        return super().next(timeout)

    def close(self) -> None:
        if self._client is not None:
            self._client.disconnect()

    def _connecting(self) -> "mqtt.Client":
        """Raises IpcError when the password cannot be had, SourceError for an unusable CA file."""
        import paho.mqtt.client as mqtt
        from paho.mqtt.enums import CallbackAPIVersion

        settings = self._settings
        client = mqtt.Client(CallbackAPIVersion.VERSION2)
        client.connect_timeout = CONNECT_TIMEOUT_S
        client.reconnect_delay_set(1, RECONNECT_MAX_S)
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_connect_fail = lambda client, data: self._waiting("cannot be reached")
        client.on_message = lambda client, data, message: self.received(message.topic, bytes(message.payload))
        try:
            if settings.tls:
                client.tls_set(ca_certs=settings.ca_file or None)
        except (OSError, ValueError) as error:
            raise SourceError(f"CA certificates {settings.ca_file}: {error}") from error
        if settings.user:
            secret = settings.password_secret
            password = api_key(self._context.ipc, secret, "password") if secret else None
            client.username_pw_set(settings.user, password)
        client.connect_async(settings.host, settings.port, KEEPALIVE_S)
        client.loop_start()
        return client

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
    payload = payload.strip()
    if payload[:1] not in (b"[", b"{"):
        try:
            return payload.decode("ascii").split(",")
        except UnicodeDecodeError as error:
            raise BackendError(f"expected numbers, got {payload[:40]!r}") from error
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise BackendError(f"expected JSON, got {payload[:80]!r}: {error}") from error
    return features_of(found)


def features_of(found: Any) -> Values:
    """A list, or an object's `features`, or an object of numbers. Raises BackendError."""
    if isinstance(found, dict):
        found = found.get("features", found)
    if not isinstance(found, list | dict):
        raise BackendError(f"expected a list or an object of numbers, got {type(found).__name__}")
    return found
