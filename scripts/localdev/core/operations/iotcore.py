"""AWS IoT Core through the core's MQTT connection. Source: MqttProxyIPCAgent of aws-greengrass-nucleus."""

import base64
from collections.abc import Coroutine
from typing import Any

from localdev.core.mqtt import IotCore, PublishRefused
from localdev.core.operations.requests import Body, blob
from localdev.core.policy import MQTT_PROXY, Authorizer
from localdev.core.profiles import Profile
from localdev.core.rpc import dump, invalid_arguments, service_error, unauthorized
from localdev.core.server import Handler, Stream

MAX_PAYLOAD_BYTES = 128 * 1024
MAX_TOPIC_CHARACTERS = 256
MAX_TOPIC_SLASHES = 7
LITE_DOWNLINK_BYTES = 4_960


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
        topic, qos = self._authorize(stream, body)
        if "payload" not in body:
            raise invalid_arguments("Payload is required")
        payload = blob(body["payload"], "payload")
        _check_topic(topic)
        if "+" in topic or "#" in topic:
            raise service_error(f"Publish topic {topic!r} must not contain a wildcard")
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise service_error(f"the payload of {len(payload)} bytes exceeds {MAX_PAYLOAD_BYTES}")
        try:
            self._link.publish(topic, payload, qos, retain=bool(body.get("retain")))
        except PublishRefused as error:
            raise service_error(str(error)) from error
        return {}

    def _subscribe(self, stream: Stream, body: Body) -> Coroutine[Any, Any, Body]:
        topic, qos = self._authorize(stream, body)
        _check_topic(topic)

        def sink(published: str, payload: bytes) -> None:
            if self._lite and len(payload) > LITE_DOWNLINK_BYTES:
                return
            event = {"message": {"topicName": published, "payload": base64.b64encode(payload).decode()}}
            stream.send_event("IoTCoreMessage", dump(event))

        async def subscribe() -> Body:
            stream.streaming = True
            stream.on_closed = await self._link.subscribe(topic, qos, sink, wait=not self._lite)
            return {}

        return subscribe()

    def _authorize(self, stream: Stream, body: Body) -> tuple[str, int]:
        topic, qos = body.get("topicName"), body.get("qos")
        if not isinstance(topic, str) or not topic:
            raise invalid_arguments("Topic is required")
        if qos is None:
            raise invalid_arguments("QoS is required")
        # The Python client passes an int through if its caller wrote one; the nucleus takes both.
        if str(qos) not in ("0", "1"):
            raise invalid_arguments(f"QoS {qos!r} is not supported")
        if not self._authorizer.allows(stream.principal, MQTT_PROXY, stream.operation, topic):
            raise unauthorized("Not Authorized")
        return topic, int(qos)


def _check_topic(topic: str) -> None:
    name = topic
    if topic.startswith("$aws/rules/"):
        name = topic.split("/", 3)[-1]
    if len(name) > MAX_TOPIC_CHARACTERS or name.count("/") > MAX_TOPIC_SLASHES:
        raise service_error(f"topic {topic!r} exceeds {MAX_TOPIC_CHARACTERS} characters or {MAX_TOPIC_SLASHES} slashes")
