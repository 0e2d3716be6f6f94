"""What the operations of a parity run share: answers as text, and subscriptions that remember what they heard."""

import datetime
import json
import queue
from collections.abc import Callable, Iterator
from typing import Any

from awsiot import greengrasscoreipc
from awsiot.greengrasscoreipc import model
from awsiot.greengrasscoreipc.clientv2 import GreengrassCoreIPCClientV2

SHOWN = 400  # characters of an answer that a record holds
WAIT_S = 5.0

json_message: Callable[[Any], Any] = lambda content: model.PublishMessage(  # noqa: E731
    json_message=model.JsonMessage(message=content)
)
binary_message: Callable[[bytes], Any] = lambda content: model.PublishMessage(  # noqa: E731
    binary_message=model.BinaryMessage(message=content)
)


def _fields(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if hasattr(value, "__dict__"):
        return {key.lstrip("_"): field for key, field in vars(value).items() if field is not None}
    return str(value)


def as_text(answer: Any) -> str:
    """An answer as the records hold it."""
    if isinstance(answer, BaseException):
        name = type(answer).__name__
        message = getattr(answer, "message", None)
        shown = message or ("" if str(answer).startswith(name) else str(answer)[:80])
        return f"{name}({shown})"
    return json.dumps(_fields(answer) if hasattr(answer, "__dict__") else answer, default=_fields, sort_keys=True)[
        :SHOWN
    ]


class Probe:
    """A client that acts as test.Probe. Handlers run on its network thread, so that all is heard in its order."""

    def __init__(self, socket: str, token: str, thing: str) -> None:
        self.thing = thing
        self._address = (socket, token)
        self.ipc = self.connect()

    def connect(self) -> Any:
        """Another client of the same component."""
        ipc = greengrasscoreipc.connect(ipc_socket=self._address[0], authtoken=self._address[1], timeout=WAIT_S)
        return GreengrassCoreIPCClientV2(client=ipc, executor=None)

    def ask(self, operation: Callable[["Probe"], Any]) -> str:
        """The answer to an operation as text. A connection that it ends is made anew."""
        try:
            return as_text(operation(self))
        except Exception as error:  # noqa: BLE001  (errors are answers)
            text = as_text(error)
            if "Closed" in text:
                self.close()
                self.ipc = self.connect()
            return text

    def close(self) -> None:
        """Ends the connection."""
        self.ipc.close().exception(WAIT_S)


Operation = Callable[[Probe], Any]
Named = Iterator[tuple[str, Operation]]


class Local:
    """A subscription to a local topic; `got` holds (kind, message, topic)."""

    def __init__(self, probe: Probe, topic: str, mode: str | None = None, client: Any = None) -> None:
        self.got: list[tuple[str, Any, str | None]] = []
        self.errors: list[str] = []
        options = {"receive_mode": mode} if mode else {}
        self.response, self.operation = (client or probe.ipc).subscribe_to_topic(
            topic=topic,
            on_stream_event=self._heard,
            on_stream_error=lambda error: not self.errors.append(as_text(error)),  # type: ignore[func-returns-value]
            on_stream_closed=lambda: None,
            **options,
        )

    def _heard(self, event: Any) -> None:
        message = event.json_message or event.binary_message
        content, kind = message.message, "json"
        if event.json_message is None:
            content, kind = (content or b"").decode(errors="replace")[:60], "bin"
        self.got.append((kind, content, message.context.topic if message.context else None))

    def close(self) -> None:
        """Ends the subscription."""
        self.operation.close()


def round_trip(probe: Probe, topic: str, message: Any) -> Any:
    """What comes of a message to oneself. The core sends it before it answers the publisher."""
    subscription = Local(probe, topic)
    probe.ipc.publish_to_topic(topic=topic, publish_message=message)
    subscription.close()
    return {"got": subscription.got, "errors": subscription.errors}


class Cloud:
    """A subscription to an IoT Core topic."""

    def __init__(self, probe: Probe, topic: str, qos: str = "1") -> None:
        self.got: queue.Queue[Any] = queue.Queue()
        self.response, self.operation = probe.ipc.subscribe_to_iot_core(
            topic_name=topic,
            qos=qos,
            on_stream_event=lambda event: self.got.put(event.message),
            on_stream_error=lambda error: False,
            on_stream_closed=lambda: None,
        )

    def all(self) -> list[Any]:
        """What was heard so far."""
        return [self.got.get() for _ in range(self.got.qsize())]


def through_the_cloud(probe: Probe, topic: str, payload: bytes, to: str | None = None, **fields: Any) -> Any:
    """What comes of a message to oneself by way of the broker; one more, sent after it, ends the wait."""
    subscription, end = Cloud(probe, to or topic), Cloud(probe, "probe/end")
    response = probe.ipc.publish_to_iot_core(topic_name=topic, payload=payload, **{"qos": "1", **fields})
    probe.ipc.publish_to_iot_core(topic_name="probe/end", payload=b"", qos="1")
    end.got.get(timeout=WAIT_S)
    for each in (subscription, end):
        each.operation.close()
    heard = [message for message in subscription.all() if message.topic_name != "probe/end"]
    return {"resp": as_text(response), "got": [as_text(message) for message in heard]}


class Changes:
    """A subscription to changes of configuration; `got` holds [component, key path]."""

    def __init__(self, probe: Probe, path: list[str], **options: Any) -> None:
        self.got: list[list[Any]] = []
        self.response, self.operation = probe.ipc.subscribe_to_configuration_update(
            key_path=path,
            on_stream_event=lambda event: self.got.append(
                [event.configuration_update_event.component_name, event.configuration_update_event.key_path]
            ),
            on_stream_error=lambda error: False,
            on_stream_closed=lambda: None,
            **options,
        )


def configured(probe: Probe, *path: str, **options: Any) -> Any:
    """GetConfiguration."""
    return probe.ipc.get_configuration(key_path=list(path), **options)


def updated(probe: Probe, path: list[str], value: Any, seconds: float = 0.0) -> Any:
    """UpdateConfiguration with a time so many seconds from now."""
    stamp = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return probe.ipc.update_configuration(key_path=path, timestamp=stamp, value_to_merge=value)


def changes(probe: Probe, path: list[str], value: Any, at: list[str]) -> Any:
    """What a subscriber hears of an update; the core tells before it answers."""
    subscription = Changes(probe, path)
    updated(probe, at, value)
    subscription.operation.close()
    return subscription.got
