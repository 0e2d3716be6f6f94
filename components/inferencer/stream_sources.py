"""Numbers that arrive by themselves: on a local topic, or from a local MQTT broker."""

import contextlib
import logging
import math
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from edgeml.backoff import Backoff
from edgeml.component import Context
from edgeml.errors import BackendError, SourceError
from edgeml.json_limits import JsonError, loads
from edgeml.log import kv
from edgeml.messages import Source
from edgeml.secrets import api_key
from edgeml.text import decoded
from inferencer.config import MqttSource
from inferencer.sample import Sample, Values
from inferencer.separated import separator_of, split

if TYPE_CHECKING:
    import paho.mqtt.client as mqtt

log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 1 << 20
CONNECT_TIMEOUT_S = 5.0
FIRST_PAUSE_S = 1.0
KEEPALIVE_S = 15
RECONNECT_MIN_S, RECONNECT_MAX_S = 1, 30
_AROUND = b" \t\r\n\v\f\0"  # a NUL ends the strings of C programs


class StreamSamples:
    """The last `limit` messages between whoever receives them and the pipeline; beyond that the oldest are dropped."""

    def __init__(self, limit: int, context: Context, prefix: str) -> None:
        self._context, self._prefix = context, prefix
        self._messages: deque[tuple[int, float, str, bytes]] = deque(maxlen=limit)
        self._arrived = threading.Condition()
        context.health.gauge(f"{prefix}.messages_waiting", lambda: float(len(self._messages)))

    def received(self, topic: str, payload: bytes) -> None:
        """Takes a message. Never blocks."""
        if len(payload) > MAX_MESSAGE_BYTES:
            self._context.health.count(f"{self._prefix}.messages_refused")
            self._context.health.error(f"{topic}: {len(payload)} bytes, {MAX_MESSAGE_BYTES} are allowed")
            return
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
        self._pauses, self._not_before = Backoff(FIRST_PAUSE_S, RECONNECT_MAX_S), 0.0
        self._waiting("not connected yet")

    def next(self, timeout: float) -> Sample | None:
        if self._client is None and time.monotonic() >= self._not_before:
            client = self._connecting()
            self._client = client
            self._context.spawn(f"{self._prefix}-mqtt", lambda: self._serve(client), again=False)
        return super().next(timeout)

    def close(self) -> None:
        client, self._client = self._client, None
        self._not_before = math.inf
        if client is not None:
            client.disconnect()

    def _serve(self, client: "mqtt.Client") -> None:
        """Read what the broker sends until `close`. A packet that paho trips over costs a connection, no more."""
        try:
            client.loop_forever(retry_first_connection=True)
        except Exception as error:
            self._context.health.count(f"{self._prefix}.broker_failed")
            self._context.health.error(f"broker: {error!r}")
            log.exception("broker %s", kv(host=self._settings.host, port=self._settings.port, state="not understood"))
            self._waiting(f"not understood: {error!r}")
            self._not_before = max(self._not_before, time.monotonic() + self._pauses.next())
            with contextlib.suppress(Exception):
                client.disconnect()
            if self._client is client:
                self._client = None

    def _connecting(self) -> "mqtt.Client":
        """Raises IpcError when the password cannot be had, SourceError for what paho does not take."""
        import paho.mqtt.client as mqtt
        from paho.mqtt.enums import CallbackAPIVersion

        settings = self._settings
        try:
            client = mqtt.Client(CallbackAPIVersion.VERSION2)
            client.connect_timeout = CONNECT_TIMEOUT_S
            client.reconnect_delay_set(RECONNECT_MIN_S, RECONNECT_MAX_S)
            client.on_connect = self._connected
            client.on_disconnect = self._disconnected
            client.on_subscribe = self._subscribed
            client.on_connect_fail = lambda client, data: self._waiting("cannot be reached")
            client.on_message = self._message
            if settings.tls:
                client.tls_set(ca_certs=settings.ca_file or None)
        except (OSError, ValueError) as error:
            raise SourceError(f"CA certificates {settings.ca_file}: {error}") from error
        password = None
        if settings.user and settings.password_secret:
            password = api_key(self._context.ipc, settings.password_secret, "password")
        try:
            if settings.user:
                client.username_pw_set(settings.user, password)
            client.connect_async(settings.host, settings.port, KEEPALIVE_S)
        except (OSError, ValueError) as error:
            raise SourceError(f"broker {settings.host}:{settings.port}: {error}") from error
        return client

    def _message(self, client: Any, data: Any, message: Any) -> None:
        try:
            topic = message.topic
        except UnicodeError:  # paho keeps bytes, and decodes them for whoever asks
            topic = self._settings.topic
        self.received(topic, bytes(message.payload))

    def _subscribed(self, client: Any, data: Any, mid: Any, reasons: Any, properties: Any) -> None:
        refused = next((reason for reason in reasons if reason.is_failure), None)
        if refused is not None:
            self._waiting(f"refused the topic {self._settings.topic}: {refused}")
            return
        self._pauses.reset()
        self._context.health.note(f"{self._prefix}.broker", "")

    def _connected(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._waiting(f"refused: {reason}")
            return
        client.subscribe(self._settings.topic, self._settings.qos)
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
    """What a message or file holds: a JSON list or number, a JSON object of numbers, or separated values.

    The numbers of a list are converted by the model that uses them. Raises BackendError.
    """
    plain = payload.strip(_AROUND)
    if plain[:1] in (b"[", b"{"):
        return features_of(parsed(plain))
    if plain.isascii() and b"\0" not in plain:
        text = plain.decode("ascii")
    else:
        try:
            text = decoded(payload).strip()
        except ValueError as error:
            raise BackendError(f"expected numbers, got {payload[:40]!r}: {error}") from error
    if not text:
        raise BackendError(f"expected numbers, got {payload[:40]!r}")
    return features_of(parsed(text.encode())) if text[0] in "[{" else split(text, separator_of(text))


def parsed(payload: bytes) -> Any:
    """JSON of strangers. Raises BackendError."""
    try:
        return loads(payload, "message", max_bytes=MAX_MESSAGE_BYTES)
    except JsonError as error:
        raise BackendError(f"expected JSON, got {payload[:80]!r}: {error}") from error


def features_of(found: Any) -> Values:
    """A list, or an object's `features`, or an object of numbers. Raises BackendError."""
    if isinstance(found, dict):
        found = found.get("features", found)
    if not isinstance(found, list | dict):
        raise BackendError(f"expected a list or an object of numbers, got {type(found).__name__}")
    return found
