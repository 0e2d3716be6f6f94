"""Local publish and subscribe between components. Source: PubSubIPCEventStreamAgent of aws-greengrass-nucleus."""

import base64
import json
from collections.abc import Callable
from typing import Any

from localdev.core.operations.requests import Body, blob, text
from localdev.core.policy import PUBSUB, Authorizer
from localdev.core.profiles import Profile
from localdev.core.rpc import dump, invalid_arguments, service_error, unauthorized
from localdev.core.server import Handler, Stream
from localdev.core.topics import TopicTrie, has_wildcard

LITE_TOPIC_BYTES = 256
LITE_JSON_OBJECTS = 255

Sink = Callable[[str, bytes, str], None]
"""Takes the publisher's name, the event's JSON, and the topic."""


class PubSub:
    """The topics of one core. Delivery keeps the order of each publisher; nothing is retained."""

    def __init__(self, authorizer: Authorizer, profile: Profile) -> None:
        self._authorizer = authorizer
        self._lite = profile is Profile.LITE
        self._subscriptions: TopicTrie[Sink] = TopicTrie()

    def handlers(self) -> dict[str, Handler]:
        """PublishToTopic and SubscribeToTopic."""
        return {"PublishToTopic": self._publish, "SubscribeToTopic": self._subscribe}

    def publish(self, publisher: str, topic: str, message: Body) -> None:
        """Delivers a PublishMessage union to every subscriber of `topic`."""
        event: bytes | None = None
        for sink in self._subscriptions.matches(topic):
            if event is None:
                event = dump({tag: {**body, "context": {"topic": topic}} for tag, body in message.items()})
            sink(publisher, event, topic)

    def subscribe(self, topic: str, sink: Sink) -> Callable[[], None]:
        """Calls `sink` for each message of a topic filter until the answer is called."""
        self._subscriptions.add(topic, sink)
        return lambda: self._subscriptions.remove(topic, sink)

    def forget(self) -> None:
        """Loses every subscription without a word, as Lite's ggpubsubd does when it starts anew."""
        self._subscriptions = TopicTrie()

    def _publish(self, stream: Stream, body: Body) -> Body:
        topic = text(body, "topic")
        self._authorize(stream, topic)
        if any(wildcard in topic for wildcard in "+#*"):
            raise invalid_arguments("Publish topic must not contain a wildcard.")
        self._check_lite(topic, body)
        self.publish(stream.principal, topic, _message(body.get("publishMessage")))
        return {}

    def _subscribe(self, stream: Stream, body: Body) -> Body:
        topic = text(body, "topic")
        self._authorize(stream, topic)
        self._check_lite(topic, body)
        default = "RECEIVE_MESSAGES_FROM_OTHERS" if has_wildcard(topic) else "RECEIVE_ALL_MESSAGES"
        mode = body.get("receiveMode", default)
        if mode not in ("RECEIVE_ALL_MESSAGES", "RECEIVE_MESSAGES_FROM_OTHERS"):
            raise invalid_arguments(f"receiveMode {mode!r} is unknown")
        only_others = mode == "RECEIVE_MESSAGES_FROM_OTHERS" and not self._lite

        def sink(publisher: str, event: bytes, _topic: str) -> None:
            if not (only_others and publisher == stream.principal):
                stream.send_event("SubscriptionResponseMessage", event)

        stream.on_closed = self.subscribe(topic, sink)
        stream.streaming = True
        return {}

    def _authorize(self, stream: Stream, topic: str) -> None:
        if not self._authorizer.allows(stream.principal, PUBSUB, stream.operation, topic):
            raise unauthorized(
                f"Principal {stream.principal} is not authorized to perform "
                f"{PUBSUB}:aws.greengrass#{stream.operation} on resource {topic}"
            )

    def _check_lite(self, topic: str, body: Body) -> None:
        if not self._lite:
            return
        if len(topic.encode()) > LITE_TOPIC_BYTES:
            raise invalid_arguments(f"topic exceeds {LITE_TOPIC_BYTES} bytes")
        if _count_nodes(body) > LITE_JSON_OBJECTS:
            raise service_error(f"the message has more than {LITE_JSON_OBJECTS} sub-objects")


def json_message(payload: Any) -> Body:
    """A PublishMessage union of a JSON object."""
    return {"jsonMessage": {"message": payload}}


def binary_message(payload: bytes) -> Body:
    """A PublishMessage union of bytes."""
    return {"binaryMessage": {"message": base64.b64encode(payload).decode()}}


def payload_of(event: bytes) -> bytes:
    """The payload of a delivered event: the bytes, or the JSON text of the object."""
    ((tag, body),) = json.loads(event).items()
    return base64.b64decode(body["message"]) if tag == "binaryMessage" else dump(body["message"])


def _message(union: Any) -> Body:
    """The message of a publish, checked, without the fields that the core fills in."""
    tags = [tag for tag in ("jsonMessage", "binaryMessage") if isinstance(union, dict) and union.get(tag)]
    if len(tags) != 1 or not isinstance(union[tags[0]], dict):
        raise invalid_arguments("publishMessage must be one of jsonMessage and binaryMessage")
    content = union[tags[0]].get("message")
    if tags[0] == "jsonMessage" and not isinstance(content, dict):
        raise invalid_arguments("jsonMessage.message must be an object")
    if tags[0] == "binaryMessage":
        blob(content, "binaryMessage.message")
    return {tags[0]: {"message": content}}


def _count_nodes(value: Any) -> int:
    """Values below the top of a JSON document, which is what fills Lite's decoding memory."""
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(1 + _count_nodes(child) for child in children)
