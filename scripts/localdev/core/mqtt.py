"""The core's connection to AWS IoT Core, or to the MQTT broker that stands in for it (MQTT 3.1.1).

Offline, the Java nucleus keeps publishes in memory up to 2.5 MB (at most once only while online) and Nucleus Lite
refuses them; on line Lite holds few unacknowledged messages. MQTT 3.1.1 carries no properties: those of a message that
comes back to the core that sent it are remembered for that time, so that a component sees what MQTT 5 would show it.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from localdev.core.profiles import Profile
from localdev.core.topics import covers, is_mqtt_filter, mqtt_matches
from localdev.mqtt_end import let_go

SPOOL_BYTES = 2_621_440
MAX_IN_FLIGHT = 5
LITE_UNACKNOWLEDGED_BYTES = 15_000
LITE_UNACKNOWLEDGED_MESSAGES = 10
KEEP_ALIVE_SECONDS = 60
RECONNECT_SECONDS = (1, 10)

REMEMBERED_MESSAGES = 64


class PublishRefused(Exception):  # noqa: N818  (names the verdict)
    """The message was not taken; the text is what the nucleus says."""


class FilterRefused(Exception):  # noqa: N818  (names the verdict)
    """The filter is none, or the broker refuses it; the text says which."""


@dataclass(slots=True, eq=False)
class Message:
    """One message. `properties` are members of the IPC's MQTTMessage that MQTT 5 would carry."""

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    properties: Mapping[str, Any] = field(default_factory=dict)


Receiver = Callable[[Message], None]


class IotCore:
    """Publishes and subscriptions over one MQTT connection. Used on the event loop's thread only.

    `url` is mqtt://[user:password@]host[:port] or mqtts://...; None: never on line.
    """

    def __init__(self, url: str | None, client_id: str, profile: Profile) -> None:
        self._url = url
        self._lite = profile is Profile.LITE
        self._online = asyncio.Event()
        self._spool: deque[Message] = deque()
        self._sent: deque[Message] = deque(maxlen=REMEMBERED_MESSAGES)
        self._in_flight: dict[int, Message] = {}
        self._held_bytes = 0
        self._subscriptions: dict[str, dict[Receiver, int]] = {}
        self._acknowledged: dict[int, asyncio.Future[bool]] = {}  # whether the broker refuses
        self._client: paho.Client | None = None
        self._client_id = client_id
        self._closing = threading.Event()

    def start(self) -> None:
        """Begins to connect, and goes on trying."""
        if self._url is None:
            return
        self._loop = asyncio.get_running_loop()
        parts = urlsplit(self._url)
        client = paho.Client(CallbackAPIVersion.VERSION2, self._client_id, protocol=paho.MQTTv311)
        if parts.username:
            client.username_pw_set(parts.username, parts.password)
        if parts.scheme == "mqtts":
            client.tls_set()
        client.on_connect = self._relay(self._connected)
        client.on_disconnect = self._relay(self._disconnected)
        client.on_publish = self._relay(self._published)
        client.on_subscribe = self._relay(self._subscribed)
        client.on_message = self._relay(self._received)
        client.reconnect_delay_set(*RECONNECT_SECONDS)
        default_port = 8883 if parts.scheme == "mqtts" else 1883
        client.connect_async(parts.hostname or "127.0.0.1", parts.port or default_port, KEEP_ALIVE_SECONDS)
        client.loop_start()
        self._client = client

    async def stop(self) -> None:
        """Disconnects and ends the network thread. What is still held is lost, as with the nucleus."""
        client, self._client = self._client, None
        if client is not None:
            self._closing.set()
            await asyncio.to_thread(let_go, client)

    @property
    def online(self) -> bool:
        """Whether there is a connection."""
        return self._online.is_set()

    def publish(self, message: Message) -> None:
        """Takes a message for delivery. PublishRefused if it is neither sent nor kept."""
        if self._lite:
            self._refuse_as_lite(message)
            if message.qos > 1 or any(wildcard in message.topic for wildcard in "+#"):
                return  # Lite takes it, and loses it with its connection
        elif not self.online and message.qos == 0:
            raise PublishRefused("Device is offline. Dropping QoS 0 message.")
        else:
            self._make_room(len(message.payload))
        self._spool.append(message)
        self._held_bytes += len(message.payload)
        self._drain()

    def _refuse_as_lite(self, message: Message) -> None:
        if not self.online:
            raise PublishRefused("MQTT is not connected")
        count = len(self._spool) + len(self._in_flight)
        if message.qos and (
            count >= LITE_UNACKNOWLEDGED_MESSAGES or self._held_bytes + len(message.payload) > LITE_UNACKNOWLEDGED_BYTES
        ):
            raise PublishRefused("Too many unacknowledged publishes")

    def _make_room(self, size: int) -> None:
        if self._held_bytes + size > SPOOL_BYTES:
            for message in [held for held in self._spool if held.qos == 0]:
                self._spool.remove(message)
                self._held_bytes -= len(message.payload)
        if self._held_bytes + size > SPOOL_BYTES:
            raise PublishRefused("Message spool is full. Message could not be added.")

    def _drain(self) -> None:
        while self._client and self.online and self._spool and len(self._in_flight) < MAX_IN_FLIGHT:
            message = self._spool.popleft()
            if message.retain or message.properties:
                self._sent.append(message)
            info = self._client.publish(message.topic, message.payload, message.qos, message.retain)
            self._in_flight[info.mid] = message

    async def subscribe(self, topic_filter: str, qos: int, receiver: Receiver, *, wait: bool) -> Callable[[], None]:
        """Calls `receiver(message)` until the answer is called. `wait`: until the broker has agreed.

        FilterRefused if the filter is none or the broker does not agree.
        """
        if not is_mqtt_filter(topic_filter):
            # Never given to the client: one that a broker refuses would end the connection of everyone, each time.
            if self._is_covered(topic_filter):
                return lambda: None
            raise FilterRefused("AWS_ERROR_MQTT5_SUBSCRIBE_OPTIONS_VALIDATION")
        receivers = self._subscriptions.setdefault(topic_filter, {})
        receivers[receiver] = qos
        try:
            if self._client and self.online:
                if not self._is_covered(topic_filter):
                    await self._ask(topic_filter)
            elif wait:
                await self._online.wait()  # connecting subscribes to every filter
        except (asyncio.CancelledError, FilterRefused):
            self._drop(topic_filter, receiver)
            raise
        return lambda: self._drop(topic_filter, receiver)

    def filters(self) -> dict[str, int]:
        """How many sinks each filter has."""
        return {topic_filter: len(sinks) for topic_filter, sinks in self._subscriptions.items()}

    def forget(self) -> None:
        """Loses every subscription without a word, as Lite's iotcored does when it starts anew."""
        filters, self._subscriptions = list(self._subscriptions), {}
        if self._client and self.online and filters:
            self._client.unsubscribe(filters)

    async def _ask(self, topic_filter: str) -> None:
        assert self._client is not None  # noqa: S101  (the caller looked)
        try:
            result, mid = self._client.subscribe(topic_filter, max(self._subscriptions[topic_filter].values()))
        except ValueError as error:
            raise FilterRefused(str(error)) from error
        if result == paho.MQTT_ERR_SUCCESS and mid is not None:
            answered = self._acknowledged[mid] = self._loop.create_future()
            if await answered:
                raise FilterRefused("UNSPECIFIED_ERROR")

    def _is_covered(self, topic_filter: str) -> bool:
        """Whether the broker sends the messages of a filter for the sake of another. Lite does not look."""
        if self._lite:
            return False
        return any(covers(other, topic_filter) for other in self._subscriptions if other != topic_filter)

    def _drop(self, topic_filter: str, receiver: Receiver) -> None:
        receivers = self._subscriptions.get(topic_filter, {})
        if receivers.pop(receiver, None) is None or receivers:
            return
        del self._subscriptions[topic_filter]
        if self._client and self.online and not self._is_covered(topic_filter):
            for other in self._subscriptions:
                if covers(topic_filter, other) and not self._is_covered(other):
                    self._client.subscribe(other, max(self._subscriptions[other].values()))
            self._client.unsubscribe(topic_filter)

    def _relay(self, handler: Callable[..., None]) -> Callable[..., None]:
        """A callback for the network thread that runs `handler` on the event loop."""

        def call(_client: Any, _userdata: Any, *arguments: Any) -> None:
            if not self._closing.is_set():
                self._loop.call_soon_threadsafe(handler, *arguments)

        return call

    def _connected(self, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure or self._client is None:  # it has called, and was stopped before we heard of it
            return
        for topic_filter, receivers in self._subscriptions.items():
            if not self._is_covered(topic_filter):
                self._client.subscribe(topic_filter, max(receivers.values()))
        self._online.set()
        self._drain()

    def _disconnected(self, *_details: Any) -> None:
        self._online.clear()
        for mid in list(self._acknowledged):
            self._subscribed(mid)  # connecting again subscribes to every filter

    def _published(self, mid: int, *_details: Any) -> None:
        message = self._in_flight.pop(mid, None)
        if message:
            self._held_bytes -= len(message.payload)
            self._drain()

    def _subscribed(self, mid: int, reasons: Any = (), *_details: Any) -> None:
        answered = self._acknowledged.pop(mid, None)
        if answered and not answered.done():
            answered.set_result(any(reason.is_failure for reason in reasons))

    def _received(self, received: paho.MQTTMessage) -> None:
        message = self._as_sent(Message(received.topic, bytes(received.payload), received.qos, received.retain))
        for topic_filter, receivers in list(self._subscriptions.items()):
            if mqtt_matches(topic_filter, message.topic):
                for receiver in list(receivers):
                    receiver(message)

    def _as_sent(self, message: Message) -> Message:
        """A message that this core has sent, with what MQTT 3.1.1 took from it."""
        for sent in self._sent:
            if (sent.topic, sent.payload) == (message.topic, message.payload):
                self._sent.remove(sent)
                return replace(message, retain=sent.retain, properties=sent.properties)
        return message
