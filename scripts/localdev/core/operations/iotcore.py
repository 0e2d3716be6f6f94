"""AWS IoT Core through the core's MQTT connection.

Sources: MqttProxyIPCAgent and IotCoreTopicValidator of aws-greengrass-nucleus, mqttproxy of aws-greengrass-lite.
"""

import base64
import re
from collections.abc import Coroutine
from typing import Any

from localdev.core.mqtt import FilterRefused, IotCore, Message, PublishRefused
from localdev.core.operations.requests import Body, blob
from localdev.core.policy import MQTT_PROXY, Authorizer
from localdev.core.profiles import Profile
from localdev.core.rpc import RpcError, dump, invalid_arguments, service_error, unauthorized
from localdev.core.server import Handler, Stream

MAX_PAYLOAD_BYTES = 128 * 1024
MAX_TOPIC_CHARACTERS = 256
MAX_RESERVED_CHARACTERS = 512
MAX_TOPIC_SLASHES = 7
LITE_DOWNLINK_BYTES = 4_960

_PREFIXES = {"PublishToIoTCore": r"\$aws/rules/[^/\s]+/", "SubscribeToIoTCore": r"\$(?:aws/rules|share)/[^/\s]+/"}
_PROPERTIES = ("userProperties", "responseTopic", "correlationData", "messageExpiryIntervalSeconds")


class IotCoreProxy:
    """PublishToIoTCore and SubscribeToIoTCore."""

    def __init__(self, authorizer: Authorizer, link: IotCore, profile: Profile) -> None:
        self._authorizer = authorizer
        self._link = link
        self._lite = profile is Profile.LITE

    def handlers(self) -> dict[str, Handler]:
        """The operations of the IoT Core proxy."""
        return {"PublishToIoTCore": self._publish, "SubscribeToIoTCore": self._subscribe}

    def _publish(self, stream: Stream, body: Body) -> Body:
        topic, qos = self._lite_request(stream, body) if self._lite else self._java_topic(stream, body)
        if self._lite:
            payload, properties = blob(body.get("payload", ""), "payload"), {}
        else:
            if "payload" not in body:
                raise invalid_arguments("Payload is required")
            payload, qos = blob(body["payload"], "payload"), self._java_qos(body)
            properties = {name: body[name] for name in _PROPERTIES if name in body}
            if str(body.get("payloadFormat")) == "1":
                properties["payloadFormat"] = "1"
            reason = _topic_problem(topic, stream.operation) or _size_problem(payload)
            if reason:
                raise service_error(f"Publish to topic {topic} failed: {reason}")
        try:
            self._link.publish(Message(topic, payload, qos, bool(body.get("retain")) and not self._lite, properties))
        except PublishRefused as error:
            raise service_error(f"Publish to topic {topic} failed: {error}") from error
        return {}

    def _subscribe(self, stream: Stream, body: Body) -> Coroutine[Any, Any, Body]:
        if self._lite:
            topic, qos = self._lite_request(stream, body)
        else:
            topic = self._java_topic(stream, body)[0]
            qos = self._java_qos(body)
            reason = _topic_problem(topic, stream.operation)
            if reason:
                raise service_error(f"Subscribe to topic {topic} failed with error {_MQTT_EXCEPTION}: {reason}")

        def receiver(message: Message) -> None:
            if self._lite and len(message.payload) > LITE_DOWNLINK_BYTES:
                return
            event: Body = {"topicName": message.topic, "payload": base64.b64encode(message.payload).decode()}
            if not self._lite:
                event |= {"retain": message.retain, "payloadFormat": "0", **message.properties}
            stream.send_event("IoTCoreMessage", dump({"message": event}))

        async def subscribe() -> Body:
            stream.streaming = True
            try:
                stream.on_closed = await self._link.subscribe(topic, qos, receiver, wait=not self._lite)
            except FilterRefused as error:
                raise service_error(f"Subscribe to topic {topic} failed with error {error}") from error
            return {}

        return subscribe()

    def _java_topic(self, stream: Stream, body: Body) -> tuple[str, int]:
        topic = body.get("topicName")
        if not isinstance(topic, str):
            raise invalid_arguments("Topic is required")
        self._authorize(stream, topic)
        return topic, 0

    def _java_qos(self, body: Body) -> int:
        qos = body.get("qos")
        if qos is None:
            raise invalid_arguments("QoS is required")
        # The Python client passes an int through if its caller wrote one; the nucleus takes both.
        if str(qos) not in ("0", "1"):
            raise invalid_arguments(f"Invalid QoS value: {qos}")
        return int(qos)

    def _lite_request(self, stream: Stream, body: Body) -> tuple[str, int]:
        topic, qos = body.get("topicName"), body.get("qos", 0)
        if not isinstance(topic, str) or str(qos) not in ("0", "1", "2") or isinstance(qos, bool):
            raise service_error("Received invalid parameters.")
        try:
            blob(body.get("payload", ""), "payload")
        except RpcError as error:
            raise service_error("'payload' is not valid base64.") from error
        self._authorize(stream, topic)
        return topic, int(qos)

    def _authorize(self, stream: Stream, topic: str) -> None:
        if not topic or not self._authorizer.allows(stream.principal, MQTT_PROXY, stream.operation, topic):
            raise unauthorized("Not Authorized")


_MQTT_EXCEPTION = "com.aws.greengrass.mqttclient.MqttRequestException"
_BASIC_INGEST = (
    f"The topic size of request must be no larger than {MAX_TOPIC_CHARACTERS} bytes of UTF-8 encoded characters. "
    "This excludes the first 3 mandatory segments for Basic Ingest topics ($AWS/rules/rule-name/)"
)
_TOO_LONG = {
    "PublishToIoTCore": _BASIC_INGEST,
    "SubscribeToIoTCore": (
        f"{_BASIC_INGEST} or first 2 mandatory segments for MQTT Shared Subscriptions ($share/share-name/)"
    ),
}


def _topic_problem(topic: str, operation: str) -> str | None:
    """What the nucleus says of a topic that AWS IoT Core would not take."""
    if operation == "PublishToIoTCore" and ("+" in topic or "#" in topic):
        return "Publish topics must not contain wildcard characters of '#' or '+'"
    prefix = re.match(_PREFIXES[operation], topic)
    if topic.startswith("$") and not prefix:
        if len(topic) > MAX_RESERVED_CHARACTERS:
            return (
                f"Reserved topic total length is greater than {MAX_RESERVED_CHARACTERS} bytes of UTF-8 encoded "
                f"characters and is most likely over the IoT Core limit of {MAX_TOPIC_CHARACTERS} bytes "
                "(excluding prefixes)."
            )
        return None
    name = topic[prefix.end() :] if prefix else topic
    if name.count("/") > MAX_TOPIC_SLASHES:
        return f"The request topic must have no more than {MAX_TOPIC_SLASHES} forward slashes (/)"
    return _TOO_LONG[operation] if len(name) > MAX_TOPIC_CHARACTERS else None


def _size_problem(payload: bytes) -> str | None:
    if len(payload) <= MAX_PAYLOAD_BYTES:
        return None
    return f"The publishing message size {len(payload)} bytes exceeds the configured limit of {MAX_PAYLOAD_BYTES} bytes"
