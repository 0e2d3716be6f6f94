"""Results to an MQTT broker on the LAN, and what Home Assistant wants to know of them."""

from __future__ import annotations

import contextlib
import json
import re
import time
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from edgeml.errors import ConfigError, EdgemlError, SinkError
from edgeml.messages import InferenceResult
from edgeml.spool import Item
from inferencer.broker import client_of
from inferencer.parts import Place, Sink
from inferencer.sinks.spooled import SpooledSettings, SpooledSink, filled, label_of

if TYPE_CHECKING:
    import paho.mqtt.client as mqtt

ANSWER_S = 10.0  # for the broker to take the connection, and each message
KEEPALIVE_S = 30
LOOP_S = 0.1
_PLACEHOLDERS = {"{thing}", "{pipeline}", "{label}"}
_UNFIT = re.compile(r"[/+#\x00]")  # within one level of a topic
_TOPIC = r"^[^+#\x00]+$(?!\n)"
# What Home Assistant shows of a result, by its task: https://www.home-assistant.io/integrations/sensor.mqtt/
_SHOWN = {
    "classification": "{{ value_json.results[0].label if value_json.results else 'none' }}",
    "detection": "{{ value_json.results | count }}",
    "regression": "{{ value_json.results.value }}",
    "anomaly": "{{ value_json.results.anomalies | select | list | count }}",
}


class MqttSink(SpooledSettings, frozen=True, kw_only=True, tag="mqtt", tag_field="type"):
    needs = ("paho",)

    host: Annotated[str, Meta(min_length=1, description="MQTT broker")]
    port: Annotated[int, Meta(ge=1, le=65535, description="Its port")] = 1883
    topic: Annotated[
        str, Meta(max_length=512, pattern=_TOPIC, description="Topic, in which {thing}, {pipeline} and {label} stand")
    ] = "edgeml/{thing}/{pipeline}"
    qos: Annotated[int, Meta(ge=0, le=1, description="Quality of service; with 0 what is under way may be lost")] = 1
    retain: Annotated[bool, Meta(description="The broker keeps the last result of each topic")] = False
    tls: Annotated[bool, Meta(description="Encrypt and check the broker's certificate")] = False
    ca_file: Annotated[str, Meta(description="CA certificates (PEM); empty takes the system's")] = ""
    user: Annotated[str, Meta(description="User name; empty connects without")] = ""
    password_secret: Annotated[str, Meta(description="Name or ARN of the secret that holds the password")] = ""
    home_assistant: Annotated[
        str,
        Meta(max_length=128, pattern=r"^[^+#\x00]*$(?!\n)", description="Discovery prefix; empty announces nothing"),
    ] = ""

    def check(self, path: str, thing: str) -> None:
        unknown = set(re.findall(r"\{[^{}]*\}", self.topic)) - _PLACEHOLDERS
        if unknown:
            allowed = ", ".join(sorted(_PLACEHOLDERS))
            raise ConfigError(f"{path}.topic", f"expected {allowed}, found {', '.join(sorted(unknown))}")
        if self.home_assistant and any("{label}" in level and level != "{label}" for level in self.topic.split("/")):
            raise ConfigError(f"{path}.topic", "for Home Assistant {label} must stand alone between two slashes")

    def open(self, place: Place) -> Sink | None:
        return MqttResults(self, place)


class MqttResults(SpooledSink):
    """One connection, made with the first result and kept while results come."""

    def __init__(self, settings: MqttSink, place: Place) -> None:
        self._settings, self._pipeline = settings, place.name
        self._client: mqtt.Client | None = None
        self._used = 0.0
        self._refused = ""
        super().__init__(settings, place, "broker")

    def topic(self, result: InferenceResult) -> str:
        return filled(self._settings.topic, self._context, self._pipeline, _UNFIT.sub("_", label_of(result)))

    def send(self, item: Item, payload: bytes) -> None:
        """All of paho is called here, in the drainer's thread."""
        settings = self._settings
        try:
            client = self._connected(item)
            self._publish(client, item.topic, payload, settings.qos, settings.retain)
        except Exception as error:  # paho's own, and what it trips over in odd packets: a connection, no more
            self._leave()
            why = error if isinstance(error, EdgemlError) else repr(error)
            raise SinkError(f"broker {settings.host}:{settings.port}: {why}") from error
        self._used = time.monotonic()

    def close(self) -> None:
        super().close()
        self._leave()

    def _connected(self, item: Item) -> mqtt.Client:
        if self._client is not None and time.monotonic() - self._used < KEEPALIVE_S:
            return self._client
        self._leave()  # nobody reads while nothing is sent: a broker gives up such a client
        client = self._client = client_of(self._settings, self._context)
        answers: list[Any] = []
        client.on_connect = lambda client, data, flags, reason, properties: answers.append(reason)
        client.connect(self._settings.host, self._settings.port, KEEPALIVE_S)
        self._wait(client, lambda: bool(answers), "no answer to the connection")
        if answers[0].is_failure:
            raise SinkError(f"refused: {answers[0]}")
        if self._settings.home_assistant:
            self._publish(client, *self._announcement(item), 1, True)
        return client

    def _publish(self, client: mqtt.Client, topic: str, payload: bytes, qos: int, retain: bool) -> None:
        sent = client.publish(topic, payload, qos, retain)
        self._wait(client, sent.is_published, "no acknowledgement")

    def _wait(self, client: mqtt.Client, done: Any, otherwise: str) -> None:
        deadline = time.monotonic() + ANSWER_S
        while not done():
            code = client.loop(LOOP_S)
            if code != 0 and not done():
                raise SinkError(f"connection lost: {code.name}")
            if time.monotonic() > deadline:
                raise SinkError(f"{otherwise} within {ANSWER_S:g} s")

    def _leave(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                client.disconnect()

    def _announcement(self, item: Item) -> tuple[str, bytes]:
        """Topic and message of MQTT discovery: a sensor of the pipeline, on a device that is the thing."""
        thing, topic = self._context.thing_name, filled(self._settings.topic, self._context, self._pipeline, "+")
        identity = re.sub(r"[^A-Za-z0-9_-]", "_", f"edgeml_{thing}_{self._pipeline}")
        told = {
            "name": self._pipeline,
            "unique_id": identity,
            "state_topic": topic,
            "json_attributes_topic": topic,
            "value_template": _SHOWN.get(item.headers.get("task", ""), "{{ value_json.task }}"),
            "device": {"identifiers": [f"edgeml_{thing}"], "name": thing, "manufacturer": "greengrass-edge-ml"},
        }
        return f"{self._settings.home_assistant}/sensor/{identity}/config", json.dumps(told).encode()
