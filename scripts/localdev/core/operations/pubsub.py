"""Local publish and subscribe between components. Source: PubSubIPCEventStreamAgent of aws-greengrass-nucleus."""

import base64
import json
from collections.abc import Callable
from typing import Any

from localdev.core.config_store import doubles
from localdev.core.operations.requests import Body, blob
from localdev.core.policy import PUBSUB, Authorizer
from localdev.core.profiles import Profile
from localdev.core.rpc import UnreadableError, dump, invalid_arguments, service_error, unauthorized
from localdev.core.server import Handler, Stream
from localdev.core.topics import FlatFilters, TopicTrie, has_wildcard

LITE_TOPIC_BYTES = 256
# Measured: 20 keys, 32 elements and 12 levels arrive; 24, 48 and 13 are lost; above 127 values or 13 levels: an error.
LITE_JSON_WEIGHT = 44
LITE_JSON_VALUES = 122
LITE_JSON_DEPTH = 12

_TAGS = ("jsonMessage", "binaryMessage")

Receiver = Callable[[str, bytes, str], None]
"""Takes the publisher's name, the event's JSON, and the topic."""


class PubSub:
    """The topics of one core. Delivery keeps the order of each publisher; nothing is retained."""

    def __init__(self, authorizer: Authorizer, profile: Profile) -> None:
        self._authorizer = authorizer
        self._lite = profile is Profile.LITE
        self.forget()

    def handlers(self) -> dict[str, Handler]:
        """PublishToTopic and SubscribeToTopic."""
        return {"PublishToTopic": self._publish, "SubscribeToTopic": self._subscribe}

    def publish(self, publisher: str, topic: str, message: Body) -> None:
        """Delivers a PublishMessage union to every subscriber of `topic`."""
        event: bytes | None = None
        for receiver in self.subscribers(topic):
            if event is None:
                event = dump({tag: {**body, "context": {"topic": topic}} for tag, body in message.items()})
            receiver(publisher, event, topic)

    def subscribe(self, topic: str, receiver: Receiver) -> Callable[[], None]:
        """Calls `receiver` for each message of a topic filter until the answer is called."""
        self._subscriptions.add(topic, receiver)
        return lambda: self._subscriptions.remove(topic, receiver)

    def subscribers(self, topic: str) -> list[Receiver]:
        """Whom a message on `topic` reaches."""
        return list(self._subscriptions.matches(topic))

    def forget(self) -> None:
        """Loses every subscription without a word, as Lite's ggpubsubd does when it starts anew."""
        self._subscriptions: TopicTrie[Receiver] | FlatFilters[Receiver] = FlatFilters() if self._lite else TopicTrie()

    def _publish(self, stream: Stream, body: Body) -> Body:
        topic = body.get("topic") or ""
        if self._lite:
            return self._publish_lite(stream, topic, body)
        self._authorize(stream, topic)
        message = _java_message(body.get("publishMessage"))
        if any(wildcard in topic for wildcard in "+#*"):
            raise invalid_arguments("Publish topic must not contain a wildcard.")
        if message:
            self.publish(stream.principal, topic, message)
        return {}

    def _publish_lite(self, stream: Stream, topic: str, body: Body) -> Body:
        """What is wrong with a request comes before what is not allowed; wildcards are plain characters."""
        message = _lite_message(body.get("publishMessage"))
        self._authorize(stream, topic)
        if len(topic.encode()) > LITE_TOPIC_BYTES:
            raise service_error(f"topic exceeds {LITE_TOPIC_BYTES} bytes")
        content = message["jsonMessage"]["message"] if "jsonMessage" in message else None
        if _count_nodes(content) > LITE_JSON_VALUES or _depth(content) > LITE_JSON_DEPTH + 1:
            raise service_error("Failed to publish the message.")
        if _weight(content) > LITE_JSON_WEIGHT or _depth(content) > LITE_JSON_DEPTH:
            return {}  # lost on the way to the subscribers
        self.publish(stream.principal, topic, message)
        return {}

    def _subscribe(self, stream: Stream, body: Body) -> Body:
        topic = body.get("topic") or ""
        self._authorize(stream, topic)
        if self._lite and len(topic.encode()) > LITE_TOPIC_BYTES:
            raise service_error(f"topic exceeds {LITE_TOPIC_BYTES} bytes")
        default = "RECEIVE_MESSAGES_FROM_OTHERS" if has_wildcard(topic) else "RECEIVE_ALL_MESSAGES"
        only_others = body.get("receiveMode", default) == "RECEIVE_MESSAGES_FROM_OTHERS" and not self._lite

        def receiver(publisher: str, event: bytes, _topic: str) -> None:
            if not (only_others and publisher == stream.principal):
                stream.send_event("SubscriptionResponseMessage", event)

        stream.on_closed = self.subscribe(topic, receiver)
        stream.streaming = True
        return {}

    def _authorize(self, stream: Stream, topic: str) -> None:
        if not topic:
            raise unauthorized("Resource cannot be empty")
        if not self._authorizer.allows(stream.principal, PUBSUB, stream.operation, topic):
            raise unauthorized(
                f"Principal {stream.principal} is not authorized to perform "
                f"{PUBSUB}:aws.greengrass#{stream.operation} on resource {topic}"
            )


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


def _java_message(union: Any) -> Body:
    """The message of a publish, empty if it has none. UnreadableError where the nucleus cannot parse the request."""
    if union is None:
        raise service_error("")  # a NullPointerException there
    members = {tag: union[tag] for tag in _TAGS if isinstance(union, dict) and union.get(tag) is not None}
    if not isinstance(union, dict) or len(members) > 1:
        raise UnreadableError("publishMessage is no union with one member")
    for tag, member in members.items():
        content = member.get("message") if isinstance(member, dict) else member
        if tag == "jsonMessage":
            if not isinstance(content, dict):
                raise UnreadableError("jsonMessage.message is no object")
            return {tag: {"message": doubles(content)}}
        blob(content, "binaryMessage.message")
        return {tag: {"message": content}}
    return {}


def _lite_message(union: Any) -> Body:
    """The message of a publish. ServiceError unless it has one."""
    members = [tag for tag in _TAGS if isinstance(union, dict) and union.get(tag) is not None]
    if len(members) != 1 or not isinstance(union[members[0]], dict) or "message" not in union[members[0]]:
        raise service_error("Received invalid parameters.")
    return {members[0]: {"message": union[members[0]]["message"]}}


def _children(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def _count_nodes(value: Any) -> int:
    """Values below the top of a JSON document."""
    return sum(1 + _count_nodes(child) for child in _children(value))


def _weight(value: Any) -> int:
    """What fills the memory that Lite decodes a message into: a member of an object twice what one of a list does."""
    each = 2 if isinstance(value, dict) else 1
    return sum(each + _weight(child) for child in _children(value))


def _depth(value: Any) -> int:
    return 1 + max((_depth(child) for child in _children(value)), default=0) if isinstance(value, dict | list) else 0
