"""The one Greengrass IPC client of a process.

Why it looks like this: the SDK's default thread pool reorders messages, and a handler that calls IPC on the
network thread never gets its answer. So the network thread only puts messages into one bounded inbox, and one
thread hands them to their handlers, in order. The SDK does not reconnect: a lost socket is reported once, the
process exits, and the core starts it again with a valid token.
"""

import concurrent.futures
import contextlib
import json
import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgeml._ears import Ears, Pace
from edgeml._standalone import StandaloneIpc, matches
from edgeml._subscription import Received, Subscription
from edgeml._unary import EndsAnswered
from edgeml.asking import TIMEOUT_S, Ipc, secret_text, translated
from edgeml.errors import DisconnectedError, IpcError
from edgeml.health import Health
from edgeml.inbox import INBOX, Handler, Inbox
from edgeml.log import kv
from edgeml.messages import MAX_IPC_BYTES
from edgeml.pace import Throttle

__all__ = [
    "INBOX",
    "GreengrassIpc",
    "Handler",
    "Ipc",
    "Pace",
    "StandaloneIpc",
    "Subscription",
    "matches",
]

log = logging.getLogger(__name__)

ANSWERS_S = 1.0  # for answers that are still to come when the connection is closed
STREAMS_S = 0.5  # for streams to end then
IN_FLIGHT = 64  # local publishes not yet answered by the core
MAX_IOT_BYTES = 128 * 1024  # AWS IoT Core's limit on a payload


class GreengrassIpc:
    """Ipc over the core's Unix socket. `on_lost` is called once, from the network thread, when the socket is gone.

    `name` is the component's, for its loop-back topic; `health` is told how well it hears.
    """

    def __init__(
        self,
        on_lost: Callable[[Exception], None],
        name: str = "",
        health: Health | None = None,
        pace: Pace | None = None,
    ) -> None:
        from awsiot.greengrasscoreipc import model
        from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2

        self._model = model
        self._closing = False
        self._sending = threading.Lock()  # nothing is sent after `close` has begun
        self._unanswered: set[concurrent.futures.Future[Any]] = set()
        self._inbox = Inbox(health)
        self._window = threading.BoundedSemaphore(IN_FLIGHT)
        self._refused: defaultdict[str, Throttle] = defaultdict(Throttle)
        self._configuration: Subscription | None = None
        self._configured: dict[str, Any] = {}
        self._subscriptions: dict[tuple[str, str, Handler], Subscription] = {}
        lite = Path(os.environ.get("AWS_GG_NUCLEUS_DOMAIN_SOCKET_FILEPATH_FOR_COMPONENT", "")).name == "gg-ipc.socket"
        self.max_iot_bytes = MAX_IPC_BYTES if lite else MAX_IOT_BYTES
        connected = self._connected(on_lost)
        self._client = GreengrassCoreIPCClientV2(client=EndsAnswered(connected) if lite else connected, executor=None)
        # The Java nucleus' broker and its MQTT client live in the process that holds our connection.
        self._ears = Ears(self, name, health, pace or Pace()) if lite else None

    def _connected(self, on_lost: Callable[[Exception], None]) -> Any:
        from awsiot import greengrasscoreipc as gg
        from awsiot.eventstreamrpc import LifecycleHandler

        owner = self

        class Lifecycle(LifecycleHandler):  # type: ignore[misc]
            def on_disconnect(self, reason: Exception | None) -> None:
                if not owner._closing:
                    on_lost(DisconnectedError(f"the Greengrass core closed the IPC connection: {reason}"))

        try:
            return gg.connect(lifecycle_handler=Lifecycle(), timeout=TIMEOUT_S)
        except KeyError as error:
            raise IpcError(
                f"{error.args[0]} is not set: not started by Greengrass? Use --standalone --config FILE"
            ) from error
        except Exception as error:
            raise translated(error, "connect") from error

    def publish(self, topic: str, payload: bytes, *, wait: float = TIMEOUT_S) -> None:
        if len(payload) > MAX_IPC_BYTES:
            raise IpcError(f"publish {topic}: {len(payload)} bytes, {MAX_IPC_BYTES} are allowed")
        if not self._window.acquire(timeout=wait):
            raise IpcError(f"publish {topic}: the core has {IN_FLIGHT} publishes to answer, waited {wait:g} s")
        try:
            future = self._send(self._client.publish_to_topic_async, **self._local(topic, payload))
        except Exception as error:
            self._window.release()
            if self._closing:
                return
            raise translated(error, f"publish {topic}") from error
        future.add_done_callback(lambda done: self._published(topic, done))

    def publish_and_wait(self, topic: str, payload: bytes) -> None:
        """As `publish`, but until the core has taken it. Raises IpcError, UnauthorizedError among them."""
        self._call(f"publish {topic}", self._client.publish_to_topic_async, **self._local(topic, payload))

    def _local(self, topic: str, payload: bytes) -> dict[str, Any]:
        message = self._model.PublishMessage(binary_message=self._model.BinaryMessage(message=payload))
        return {"topic": topic, "publish_message": message}

    def _published(self, topic: str, done: Any) -> None:
        self._window.release()
        error = done.exception()
        if error is None:
            return
        refused = self._refused[topic]
        if refused.due() and not self._closing:
            log.error("publish refused %s", kv(error=translated(error, f"publish {topic}"), times=refused.count))

    def publish_iot(self, topic: str, payload: bytes, *, qos: int = 1) -> None:
        if len(payload) > self.max_iot_bytes:
            raise IpcError(f"publish to IoT Core {topic}: {len(payload)} bytes, {self.max_iot_bytes} are allowed")
        self._call(
            f"publish to IoT Core {topic}",
            self._client.publish_to_iot_core_async,
            topic_name=topic,
            qos=str(qos),
            payload=payload,
        )

    def subscribe(self, topic: str, handler: Handler) -> Subscription:
        return self._subscribed("local", topic, handler, lambda received: self.listen(topic, received))

    def listen(self, topic: str, received: Received) -> Any:
        """The open stream of a local topic, whose messages go to `received` on the network thread. Raises IpcError."""

        def event(event: Any) -> None:
            message = event.binary_message or event.json_message
            if message is None:  # an event of a kind that this SDK does not know
                return
            body = message.message
            payload = body if isinstance(body, bytes) else json.dumps(body).encode()
            received((message.context and message.context.topic) or topic, payload)

        return self._stream(f"subscribe {topic}", self._client.subscribe_to_topic_async, event, topic=topic)

    def subscribe_iot(self, topic: str, handler: Handler, *, qos: int = 1) -> Subscription:
        def listen(received: Received) -> Any:
            return self._stream(
                f"subscribe to IoT Core {topic}",
                self._client.subscribe_to_iot_core_async,
                lambda event: received(event.message.topic_name, event.message.payload or b""),
                topic_name=topic,
                qos=str(qos),
            )

        return self._subscribed("iot_core", topic, handler, listen)

    def _subscribed(
        self, channel: str, topic: str, handler: Handler, listen: Callable[[Received], Any]
    ) -> Subscription:
        key = channel, topic, handler
        subscription = self._subscriptions.get(key)
        if subscription is None or subscription.closed:
            subscription = Subscription(
                listen,
                lambda topic, payload: self._inbox.put(handler, topic, payload),
                lambda: self._forget(key),
            )
        if self._ears is not None:
            self._ears.open(channel)
        subscription.renew()
        self._subscriptions[key] = subscription
        return subscription

    def _forget(self, key: tuple[str, str, Handler]) -> None:
        self._subscriptions.pop(key, None)

    def subscriptions(self, channel: str) -> list[Subscription]:
        """Those of `local` topics, or of `iot_core`."""
        return [subscription for key, subscription in list(self._subscriptions.items()) if key[0] == channel]

    def configuration(self, component: str = "") -> dict[str, Any]:
        if component:
            what, get = f"get configuration of {component}", self._client.get_configuration_async
            return dict(self._call(what, get, key_path=[], component_name=component).value or {})
        value = self._call("get configuration", self._client.get_configuration_async, key_path=[]).value
        self._configured = dict(value or {})
        return dict(self._configured)

    def on_configuration(self, changed: Callable[[], None]) -> None:
        def listen(received: Received) -> Any:
            return self._stream(
                "subscribe to configuration",
                self._client.subscribe_to_configuration_update_async,
                lambda event: received("", str(time.monotonic_ns()).encode()),  # each of them counts
                key_path=[],
            )

        subscription = Subscription(listen, lambda topic, payload: changed())
        subscription.renew()
        self._configuration, self._changed = subscription, changed
        if self._ears is not None:
            self._ears.open("configuration")

    def renew_configuration(self) -> None:
        """Listen to changes anew, and tell of one that nobody told of meanwhile. Raises IpcError."""
        if self._configuration is None:
            return
        self._configuration.renew()
        known = self._configured
        if self.configuration() != known:
            self._changed()

    def secret(self, secret_id: str) -> str:
        value = self._call(f"secret {secret_id}", self._client.get_secret_value_async, secret_id=secret_id).secret_value
        return secret_text(secret_id, getattr(value, "secret_string", None), getattr(value, "secret_binary", None))

    def dropped(self) -> int:
        return self._inbox.dropped + sum(each.count for each in list(self._refused.values()))

    def ready(self) -> None:
        return

    def close(self) -> None:
        """Send nothing more, wait a moment for answers, end the streams, then the connection.

        In this order: a connection that is closed with an answer outstanding can freeze the IPC of a whole device with
        Nucleus Lite.
        """
        with self._sending:
            self._closing = True
            unanswered = list(self._unanswered)
        echo = None if self._ears is None else self._ears.close()
        concurrent.futures.wait(unanswered, ANSWERS_S)
        streams = [echo, self._configuration, *self._subscriptions.values()]
        ends = [stream.end() for stream in streams if stream is not None]
        concurrent.futures.wait([end for end in ends if end is not None], STREAMS_S)
        self._inbox.close()
        with contextlib.suppress(Exception):  # best effort: the process is about to end
            self._client.close().result(timeout=2)

    def _send(self, operation: Callable[..., Any], **arguments: Any) -> Any:
        """What `operation` gives: the future of its answer, or that and a stream. Raises IpcError when closing."""
        with self._sending:
            if self._closing:
                raise IpcError("the connection is being closed")
            sent = operation(**arguments)
            future = sent[0] if isinstance(sent, tuple) else sent
            self._unanswered.add(future)
        future.add_done_callback(self._unanswered.discard)
        return sent

    def _call(self, what: str, operation: Callable[..., Any], **arguments: Any) -> Any:
        try:
            return self._send(operation, **arguments).result(timeout=TIMEOUT_S)
        except Exception as error:
            raise translated(error, what) from error

    def _stream(
        self, what: str, operation: Callable[..., Any], received: Callable[[Any], None], **arguments: Any
    ) -> Any:
        """The open stream; its `close()` ends it."""

        def failed(error: Exception) -> bool:
            log.error("stream error %s", kv(stream=what, error=error))
            return False  # keep the stream: one undecodable event is not a reason to stop listening

        stream = None
        try:
            future, stream = self._send(operation, **arguments, on_stream_event=received, on_stream_error=failed)
            future.result(timeout=TIMEOUT_S)
        except Exception as error:
            if stream is not None:  # the core may still open what we no longer wait for
                stream.close()
            raise translated(error, what) from error
        return stream
