"""amqtt with AWS IoT Core's rules on top, and its lifecycle events.

`$aws/...` topics may be published to, payloads are at most 128 KiB, topics have at most 7 slashes and 256 bytes, and
whoever breaks a rule is disconnected, as is whoever is silent for 1.5 times its keep-alive or whose client id connects
again. Who comes and goes is told on `$aws/events/presence/`, on which clients cannot publish.

https://docs.aws.amazon.com/iot/latest/developerguide/life-cycle-events.html
"""

import asyncio
import json
import math
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig
from amqtt.mqtt.disconnect import DisconnectPacket
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.plugins.base import BaseAuthPlugin

MAX_PAYLOAD_BYTES = 128 * 1024
MAX_TOPIC_BYTES = 256
MAX_SLASHES = 7  # topics that begin with $aws/ do not count their first three
EVENTS = "$aws/events/"
NOBODY = "n/a"  # clientid() of what no client has published

OnPublish = Callable[[str, str, bytes], None]  # client id, topic, payload; on the broker's thread, must not block


class Welcome(BaseAuthPlugin):  # type: ignore[misc]
    """Lets everyone in. amqtt's own anonymous access would not keep QoS 1 messages for sleeping sessions."""

    async def authenticate(self, *, session: Any) -> bool:
        return True

    @dataclass
    class Config:
        pass


class Reader(StreamReaderAdapter):  # type: ignore[misc]
    aborted = False

    async def read(self, n: int = -1) -> bytes:
        # Since Python 3.12 amqtt reads on without a pause while there are data, for which the whole loop waits; and at
        # the end of the stream it cancels the handling of packets before it has begun.
        await asyncio.sleep(0)
        if self.aborted:
            raise ConnectionResetError
        return bytes(await super().read(n))


class Writer(StreamWriterAdapter):  # type: ignore[misc]
    def abort(self) -> None:
        self._writer.transport.abort()


class Handler(BrokerProtocolHandler):  # type: ignore[misc]
    """One connection: `gone` when it has to end, for `reason`; `finished` when it has ended."""

    def __init__(self, plugins: Any) -> None:
        super().__init__(plugins)
        self.gone, self.finished = asyncio.Event(), asyncio.Event()
        self.goodbye: DisconnectPacket | None = None
        self.reason = ""

    def end(self, reason: str) -> None:
        self.reason = self.reason or reason
        self.gone.set()
        if self.reader is not None:
            self.reader.aborted = True
            self.writer.abort()

    async def handle_disconnect(self, disconnect: DisconnectPacket | None) -> None:
        if disconnect is not None:
            self.goodbye, self.reason = disconnect, self.reason or "CLIENT_INITIATED_DISCONNECT"
        self.gone.set()
        await super().handle_disconnect(disconnect)

    async def handle_connect(self, connect: Any) -> None:
        self.end("CLIENT_ERROR")  # a second one on the same connection

    def handle_read_timeout(self) -> None:
        self.end("MQTT_KEEP_ALIVE_TIMEOUT")

    async def stop(self) -> None:
        """amqtt's cancels its reader and waits for its end. In Python 3.11 asyncio.wait_for loses a cancellation that
        comes together with data; the reader then went on for ever. So the data end first."""
        self.end("CONNECTION_LOST")
        await super().stop()


class IotCoreBroker(Broker):  # type: ignore[misc]
    def __init__(self, config: BrokerConfig, on_publish: list[OnPublish]) -> None:
        super().__init__(config)
        self._on_publish = on_publish
        self._handlers: dict[str, Handler] = {}  # by client id
        self._connects: Counter[str] = Counter()
        self._stopping = False

    async def shutdown(self) -> None:
        self._stopping = True  # whoever leaves now was not lost
        await super().shutdown()

    async def _initialize_client_session(self, *connection: Any) -> tuple[Handler, Any]:
        _, session = await super()._initialize_client_session(*connection)
        session.keep_alive = math.ceil(1.5 * session.keep_alive)
        return Handler(self.plugins_manager), session

    async def _handle_client_session(
        self, reader: Any, writer: Any, session: Any, handler: Handler, *more: Any
    ) -> None:
        while (earlier := self._handlers.get(session.client_id)) is not None:
            earlier.end("DUPLICATE_CLIENTID")
            await earlier.finished.wait()
        self._handlers[session.client_id] = handler
        try:
            await super()._handle_client_session(reader, writer, session, handler, *more)
        finally:
            del self._handlers[session.client_id]
            handler.finished.set()

    async def _client_message_loop(self, session: Any, handler: Handler) -> None:
        """Serves a client. Unlike amqtt's, it ends when all that the client has published is passed on."""
        presence = {"sessionIdentifier": str(uuid.uuid4()), "versionNumber": self._connects[session.client_id]}
        self._connects[session.client_id] += 1
        await self._tell("connected", session, presence | {"ipAddress": session.remote_address})
        publishing = asyncio.create_task(self._pass_on_all(session, handler))
        loops = [
            publishing,
            *map(asyncio.create_task, (self._subscribe(session, handler), self._unsubscribe(session, handler))),
        ]
        for loop in loops:
            loop.add_done_callback(lambda _: handler.gone.set())
        try:
            await handler.gone.wait()
        finally:
            broken = publishing.done()
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)  # an answer to someone who has left fails
        waiting = session.delivered_message_queue
        while not broken and not waiting.empty():
            broken = not await self._pass_on(session, waiting.get_nowait())
        await self._handle_disconnect(session, handler, _done(handler.goodbye))
        left = {"clientInitiatedDisconnect": handler.goodbye is not None, "disconnectReason": handler.reason}
        await self._tell("disconnected", session, presence | left)

    async def _subscribe(self, session: Any, handler: Handler) -> None:
        while True:
            await self._handle_subscription(session, handler, _done(await handler.get_next_pending_subscription()))

    async def _unsubscribe(self, session: Any, handler: Handler) -> None:
        while True:
            await self._handle_unsubscription(session, handler, _done(await handler.get_next_pending_unsubscription()))

    async def _pass_on_all(self, session: Any, handler: Handler) -> None:
        while await self._pass_on(session, await session.delivered_message_queue.get()):
            pass
        handler.reason = "CLIENT_ERROR"

    async def _pass_on(self, session: Any, message: Any) -> bool:
        """Whether the message was one that clients may publish."""
        if not allowed(message.topic, len(message.data)):
            return False
        await self._publish(session, message.topic, message.data)
        if message.publish_packet and message.publish_packet.retain_flag:
            await self.retain_message(session, message.topic, message.data, message.qos)
        return True

    async def _tell(self, event: str, session: Any, more: dict[str, Any]) -> None:
        who = session.client_id
        if self._stopping or "#" in who or "+" in who:
            return
        body = {"clientId": who, "timestamp": int(time.time() * 1000), "eventType": event}
        body |= {"principalIdentifier": NOBODY, **more}
        await self._publish(None, f"{EVENTS}presence/{event}/{who}", json.dumps(body).encode())

    async def _publish(self, session: Any | None, topic: str, data: bytes) -> None:
        await self._broadcast_message(session, topic, data)
        for callback in self._on_publish:
            callback(session.client_id if session else NOBODY, topic, bytes(data))


def allowed(topic: str, size: int) -> bool:
    """Whether AWS IoT Core takes a publish of `size` bytes to `topic`."""
    if not topic or "+" in topic or "#" in topic or topic.startswith(EVENTS):
        return False
    if topic.startswith("$") and not topic.startswith("$aws/"):
        return False
    slashes = topic.count("/") - (3 if topic.startswith("$aws/") else 0)
    return slashes <= MAX_SLASHES and len(topic.encode()) <= MAX_TOPIC_BYTES and size <= MAX_PAYLOAD_BYTES


def _done(result: Any) -> asyncio.Future[Any]:
    """What amqtt's methods take: a future that has its result."""
    future = asyncio.get_running_loop().create_future()
    future.set_result(result)
    return future
