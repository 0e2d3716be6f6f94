"""The protocol's rules that a well-behaved client never shows, spoken frame by frame."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from localdev.core import LocalCore
from localdev.core.rpc import MessageType
from localdev.core.wire import Decoder, Frame, Header, HeaderType, encode

EVERYTHING = {"aws.greengrass.ipc.pubsub": {"all": {"operations": ["*"], "resources": ["*"]}}}


class RawClient:
    """One connection that sends what it is told to."""

    def __init__(self, core: LocalCore) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(5)
        self._socket.connect(str(core.socket))
        self._decoder = Decoder()
        self._frames: list[Frame] = []

    def send(self, kind: int, stream: int = 0, flags: int = 0, payload: bytes = b"", **headers: str) -> None:
        every: dict[str, Header] = {
            ":message-type": (HeaderType.INT32, kind),
            ":message-flags": (HeaderType.INT32, flags),
            ":stream-id": (HeaderType.INT32, stream),
        }
        every |= {
            name.replace("__", ":").replace("_", "-"): (HeaderType.STRING, text) for name, text in headers.items()
        }
        self.send_bytes(encode(every, payload))

    def send_bytes(self, data: bytes) -> None:
        self._socket.sendall(data)

    def connect(self, token: str) -> Frame | None:
        self.send(MessageType.CONNECT, payload=json.dumps({"authToken": token}).encode(), __version="0.1.0")
        return self.receive()

    def call(self, stream: int, operation: str, body: Any) -> None:
        self.send(0, stream, payload=json.dumps(body).encode(), operation=f"aws.greengrass#{operation}")

    def receive(self) -> Frame | None:
        """The next frame, or None if the server has closed the connection."""
        while not self._frames:
            data = self._socket.recv(65536)
            if not data:
                return None
            self._frames += self._decoder.feed(data)
        return self._frames.pop(0)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def raw(core: LocalCore) -> Iterator[RawClient]:
    client = RawClient(core)
    yield client
    client.close()


@pytest.fixture
def connected(core: LocalCore, raw: RawClient) -> RawClient:
    raw.connect(core.add_principal("test.Raw", EVERYTHING))
    return raw


def values(frame: Frame | None) -> dict[str, Any]:
    assert frame is not None
    return {name: value for name, (_, value) in frame.headers.items()}


def test_connect_is_accepted_with_a_token(core: LocalCore, raw: RawClient) -> None:
    answer = raw.connect(core.token("x"))
    assert values(answer) == {":message-type": 5, ":message-flags": 1, ":stream-id": 0}
    assert answer is not None
    assert answer.payload == b""


@pytest.mark.parametrize(
    ("version", "payload"),
    [
        ("0.1.0", b'{"authToken": "wrong"}'),
        ("0.1.0", b'{"authToken": ""}'),
        ("0.1.0", b'{"authToken": 5}'),
        ("0.1.0", b"no json"),
        ("0.1.0", b"[]"),
        ("0.2.0", None),
    ],
)
def test_connect_is_refused_and_closed(core: LocalCore, raw: RawClient, version: str, payload: bytes | None) -> None:
    good = json.dumps({"authToken": core.token("x")}).encode()
    raw.send(MessageType.CONNECT, payload=good if payload is None else payload, __version=version)
    assert values(raw.receive()) == {":message-type": 5, ":message-flags": 0, ":stream-id": 0}
    assert raw.receive() is None


def test_anything_before_connect_is_a_protocol_error(raw: RawClient) -> None:
    raw.send(0, 1, operation="aws.greengrass#GetConfiguration")
    assert values(raw.receive())[":message-type"] == MessageType.PROTOCOL_ERROR
    assert raw.receive() is None


def test_ping_is_answered_with_its_payload_and_own_headers(connected: RawClient) -> None:
    connected.send(MessageType.PING, payload=b"echo", mark="7")
    answer = connected.receive()
    assert values(answer) == {":message-type": 3, ":message-flags": 0, ":stream-id": 0, "mark": "7"}
    assert answer is not None
    assert answer.payload == b"echo"


def test_unary_answers_carry_the_shape_and_end_the_stream(connected: RawClient) -> None:
    connected.call(1, "PublishToTopic", {"topic": "t", "publishMessage": {"binaryMessage": {"message": ""}}})
    answer = connected.receive()
    assert values(answer) == {
        ":message-type": 0,
        ":message-flags": 2,
        ":stream-id": 1,
        "service-model-type": "aws.greengrass#PublishToTopicResponse",
        ":content-type": "application/json",
    }
    assert answer is not None
    assert answer.payload == b"{}"


def test_errors_have_every_field_and_end_the_stream(connected: RawClient) -> None:
    connected.call(1, "GetConfiguration", {"keyPath": ["absent"]})
    answer = connected.receive()
    assert values(answer) == {
        ":message-type": 1,
        ":message-flags": 2,
        ":stream-id": 1,
        "service-model-type": "aws.greengrass#ResourceNotFoundError",
        ":content-type": "application/json",
    }
    assert answer is not None
    assert json.loads(answer.payload) == {
        "_message": "Key not found",
        "message": "Key not found",
        "_errorCode": "ResourceNotFoundError",
        "_service": "GreengrassCoreIPC",
    }


def test_the_response_precedes_events_and_terminate_ends_them(core: LocalCore, connected: RawClient) -> None:
    connected.call(1, "SubscribeToTopic", {"topic": "t"})
    response = values(connected.receive())
    assert (response["service-model-type"], response[":message-flags"]) == (
        "aws.greengrass#SubscribeToTopicResponse",
        0,
    )
    core.publish("t", {"n": 1})
    event = values(connected.receive())
    assert (event["service-model-type"], event[":stream-id"]) == ("aws.greengrass#SubscriptionResponseMessage", 1)
    connected.send(0, 1, flags=2)
    connected.send(0, 1, flags=2)  # a second one, for a stream that is gone, is ignored
    connected.call(2, "GetConfiguration", {})
    connected.receive()
    core.publish("t", {"n": 2})
    connected.call(3, "GetConfiguration", {})
    assert values(connected.receive())[":stream-id"] == 3


def test_events_published_in_one_go_arrive_in_order(core: LocalCore, connected: RawClient) -> None:
    connected.call(1, "SubscribeToTopic", {"topic": "t"})
    for number in range(1, 101):
        body = {"topic": "t", "publishMessage": {"jsonMessage": {"message": {"n": number}}}}
        connected.call(number + 1, "PublishToTopic", body)
    events: list[int] = []
    while len(events) < 100:
        frame = connected.receive()
        assert frame is not None
        if values(frame)[":stream-id"] == 1 and b"jsonMessage" in frame.payload:
            events.append(json.loads(frame.payload)["jsonMessage"]["message"]["n"])
    assert events == list(range(1, 101))


@pytest.mark.parametrize("first", [2, 0x7FFFFFFF])
def test_stream_ids_must_follow_each_other(connected: RawClient, first: int) -> None:
    connected.call(first, "GetConfiguration", {})
    assert values(connected.receive())[":message-type"] == MessageType.PROTOCOL_ERROR
    assert connected.receive() is None


@pytest.mark.parametrize("kind", [MessageType.CONNECT, MessageType.CONNECT_ACK, 9])
def test_an_unexpected_connection_message_closes_it(connected: RawClient, kind: int) -> None:
    connected.send(kind)
    assert values(connected.receive())[":message-type"] == MessageType.INTERNAL_ERROR
    assert connected.receive() is None


def test_a_frame_without_the_protocol_headers_closes_the_connection(connected: RawClient) -> None:
    connected.send_bytes(encode({":message-type": (HeaderType.INT32, 0), ":stream-id": (HeaderType.STRING, "1")}))
    assert values(connected.receive())[":message-type"] == MessageType.PROTOCOL_ERROR
    assert connected.receive() is None


def test_a_broken_checksum_closes_the_connection(core: LocalCore, connected: RawClient) -> None:
    connected.send_bytes(b"\0" * 64)
    assert connected.receive() is None
    assert "checksum" in core.log("greengrass")


@pytest.mark.parametrize("payload", [b"no json", b"[1]", b""])
def test_a_request_that_is_no_object_is_an_error_of_its_stream(connected: RawClient, payload: bytes) -> None:
    connected.send(0, 1, payload=payload, operation="aws.greengrass#GetConfiguration")
    assert values(connected.receive())["service-model-type"] == "aws.greengrass#InvalidArgumentsError"


def test_a_failure_of_the_core_itself_is_plain_text(connected: RawClient) -> None:
    deep = b'{"keyPath": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    connected.send(0, 1, payload=deep, operation="aws.greengrass#GetConfiguration")
    answer = connected.receive()
    assert answer is not None
    assert (values(answer)[":content-type"], answer.payload) == ("text/plain", b"InternalServerError")
    assert (values(answer)[":message-type"], values(answer)[":message-flags"]) == (1, 2)


def test_unknown_operations(connected: RawClient) -> None:
    """Those of plugins that are not deployed get a modelled error, those outside the model one outside it."""
    connected.call(1, "GetThingShadow", {})
    answer = connected.receive()
    assert answer is not None
    assert values(answer)["service-model-type"] == "aws.greengrass#ServiceError"
    expected = "Operation aws.greengrass#GetThingShadow is not supported by Greengrass"
    assert json.loads(answer.payload)["message"] == expected
    connected.call(2, "SubscribeToIoTCoreConnectionStatus", {})
    answer = connected.receive()
    assert answer is not None
    assert answer.payload == b"InternalServerError"


def test_anyone_may_open_the_socket(core: LocalCore) -> None:
    assert core.socket.stat().st_mode & 0o777 == 0o666


class TestLite:
    @pytest.fixture
    def connected(self, lite: LocalCore) -> Iterator[RawClient]:
        client = RawClient(lite)
        client.connect(lite.add_principal("test.Raw", EVERYTHING))
        yield client
        client.close()

    def test_success_does_not_end_the_stream(self, connected: RawClient) -> None:
        connected.call(1, "GetConfiguration", {})
        assert values(connected.receive())[":message-flags"] == 0

    def test_errors_lack_the_modelled_fields(self, connected: RawClient) -> None:
        connected.call(1, "GetConfiguration", {"keyPath": ["absent"]})
        answer = connected.receive()
        assert answer is not None
        assert json.loads(answer.payload) == {"_message": "Key not found", "_errorCode": "ResourceNotFoundError"}

    def test_a_frame_above_10000_bytes_closes_the_connection(self, connected: RawClient) -> None:
        connected.send(0, 1, payload=b" " * 10_000)
        assert connected.receive() is None

    def test_an_event_too_large_is_lost_and_the_connection_stays(self, lite: LocalCore, connected: RawClient) -> None:
        connected.call(1, "SubscribeToTopic", {"topic": "t"})
        connected.receive()
        lite.publish("t", bytes(9_000))
        connected.call(2, "GetConfiguration", {})
        assert values(connected.receive())[":stream-id"] == 2

    def test_the_client_after_the_fiftieth_is_turned_away(self, lite: LocalCore) -> None:
        clients = [RawClient(lite) for _ in range(51)]
        try:
            assert clients[49].connect(lite.token("x")) is not None
            with pytest.raises((ConnectionError, AssertionError)):
                assert clients[50].connect(lite.token("x")) is not None
        finally:
            for client in clients:
                client.close()
