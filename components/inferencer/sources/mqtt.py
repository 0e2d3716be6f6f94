"""Numbers from a local MQTT broker."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from edgeml.backoff import Backoff
from edgeml.errors import SourceError
from edgeml.log import kv
from inferencer.broker import client_of
from inferencer.parts import Place, SampleSource, SourceSettings
from inferencer.sample import Sample
from inferencer.sources.stream import StreamSamples

if TYPE_CHECKING:
    import paho.mqtt.client as mqtt

    from edgeml.component import Context

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 1.0
KEEPALIVE_S = 15
RECONNECT_MIN_S, RECONNECT_MAX_S = 1, 30
# MQTT 3.1.1, 4.7: `+` for a whole level, `#` for the last one and all below.
_FILTER = r"^(#|([^/+#\x00]*|\+)(/([^/+#\x00]*|\+))*(/#)?)$(?!\n)"


class MqttSource(SourceSettings, frozen=True, tag="mqtt", tag_field="type"):
    needs = ("paho",)

    host: Annotated[str, Meta(min_length=1, description="MQTT broker")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=1, le=65535, description="Its port")] = 1883
    topic: Annotated[str, Meta(min_length=1, pattern=_FILTER, description="Topic filter")] = "turbine/raw"
    qos: Annotated[int, Meta(ge=0, le=1, description="Quality of service of the subscription")] = 0
    tls: Annotated[bool, Meta(description="Encrypt and check the broker's certificate")] = False
    ca_file: Annotated[str, Meta(description="CA certificates (PEM); empty takes the system's")] = ""
    user: Annotated[str, Meta(description="User name; empty connects without")] = ""
    password_secret: Annotated[str, Meta(description="Name or ARN of the secret that holds the password")] = ""
    queue: Annotated[int, Meta(ge=1, le=100_000, description="Messages that wait; further ones are dropped")] = 1000

    def open(self, place: Place) -> SampleSource:
        return MqttSamples(self, 1 if place.pipeline.backend.remote else self.queue, place.context, place.prefix)


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

    def _serve(self, client: mqtt.Client) -> None:
        """Read what the broker sends until `close`. A packet that paho trips over costs a connection, no more."""
        try:
            client.loop_forever(retry_first_connection=True)
        except Exception as error:
            self._health.count("broker_failed")
            self._health.error(f"broker: {error!r}")
            log.exception("broker %s", kv(host=self._settings.host, port=self._settings.port, state="not understood"))
            self._waiting(f"not understood: {error!r}")
            self._not_before = max(self._not_before, time.monotonic() + self._pauses.next())
            with contextlib.suppress(Exception):
                client.disconnect()
            if self._client is client:
                self._client = None

    def _connecting(self) -> mqtt.Client:
        """Raises SecretError when the password cannot be had, SourceError for what paho does not take."""
        settings, client = self._settings, client_of(self._settings, self._context)
        client.reconnect_delay_set(RECONNECT_MIN_S, RECONNECT_MAX_S)
        client.on_connect = self._connected
        client.on_disconnect = self._disconnected
        client.on_subscribe = self._subscribed
        client.on_connect_fail = lambda client, data: self._waiting("cannot be reached")
        client.on_message = self._message
        try:
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
        self._health.scope("broker").note("")

    def _connected(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._waiting(f"refused: {reason}")
            return
        client.subscribe(self._settings.topic, self._settings.qos)
        log.info("broker connected %s", kv(host=self._settings.host, port=self._settings.port))

    def _disconnected(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._health.count("broker_lost")
            self._waiting(f"lost: {reason}")

    def _waiting(self, why: str) -> None:
        where = f"{self._settings.host}:{self._settings.port}"
        self._health.scope("broker").note(f"broker {where} {why}")
        log.info("broker %s", kv(host=self._settings.host, port=self._settings.port, state=why))
