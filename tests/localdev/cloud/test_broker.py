"""The broker against a real MQTT client, paho."""

import contextlib
import json
import queue
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from localdev.cloud.broker import Broker
from localdev.mqtt_end import let_go
from support import eventually

PUBLISH, GOODBYE = b"\x30\x06\x00\x03a/bx", b"\xe0\x00"  # MQTT packets


def plain(port: int, client_id: str, keep_alive_s: int = 60) -> socket.socket:
    """A connected client that says what the test makes it say."""
    made = socket.create_connection(("127.0.0.1", port), timeout=5)
    header = b"\x00\x04MQTT\x04\x02" + struct.pack(">HH", keep_alive_s, len(client_id)) + client_id.encode()
    made.sendall(b"\x10" + bytes([len(header)]) + header)
    assert made.recv(4) == b"\x20\x02\x00\x00"
    return made


def flood(client: socket.socket) -> None:
    """Publishes until the connection ends."""
    with client, contextlib.suppress(OSError):
        while True:
            client.sendall(PUBLISH * 50)


class Client:
    """A paho client whose messages lie in a queue."""

    def __init__(self, port: int, client_id: str = "", clean: bool = True, reconnect: bool = False) -> None:
        self.inbox: queue.Queue[mqtt.MQTTMessage] = queue.Queue()
        self._acks: queue.Queue[str] = queue.Queue()
        self.paho = mqtt.Client(
            CallbackAPIVersion.VERSION2, client_id=client_id, clean_session=clean, reconnect_on_failure=reconnect
        )
        self.paho.on_message = lambda client, data, message: self.inbox.put(message)
        self.paho.on_subscribe = lambda *_: self._acks.put("subscribed")
        self.paho.connect("127.0.0.1", port)
        self.paho.loop_start()
        eventually(self.paho.is_connected, what="connected")

    def subscribe(self, topic: str, qos: int = 1) -> None:
        self.paho.subscribe(topic, qos)
        self._acks.get(timeout=5)

    def publish(self, topic: str, payload: bytes, qos: int = 1, retain: bool = False) -> None:
        self.paho.publish(topic, payload, qos, retain).wait_for_publish(5)

    def received(self) -> tuple[str, bytes]:
        message = self.inbox.get(timeout=5)
        return message.topic, bytes(message.payload)

    def close(self) -> None:
        let_go(self.paho)


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as running:
        yield running


@contextmanager
def client(port: int, client_id: str = "", clean: bool = True, reconnect: bool = False) -> Iterator[Client]:
    made = Client(port, client_id, clean, reconnect)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("qos", [0, 1])
def test_messages_arrive_in_order(broker: Broker, qos: int) -> None:
    with client(broker.port) as sender, client(broker.port) as receiver:
        receiver.subscribe("device/+/logs", qos)
        for i in range(200):
            sender.publish("device/a/logs", b"%d" % i, qos)
        assert [receiver.received()[1] for _ in range(200)] == [b"%d" % i for i in range(200)]


def test_aws_topics_are_normal_topics(broker: Broker) -> None:
    with client(broker.port) as thing:
        thing.subscribe("$aws/things/t1/jobs/#")
        thing.publish("$aws/things/t1/jobs/get", b"{}")
        assert thing.received() == ("$aws/things/t1/jobs/get", b"{}")


def test_a_retained_message_waits_for_its_subscriber(broker: Broker) -> None:
    with client(broker.port) as sender:
        sender.publish("state", b"on", retain=True)
    with client(broker.port) as receiver:
        receiver.subscribe("state")
        assert receiver.received() == ("state", b"on")


def test_a_persistent_session_gets_what_was_sent_while_it_was_away(broker: Broker) -> None:
    with client(broker.port, "sleeper", clean=False) as sleeper:
        sleeper.subscribe("wake")
    with client(broker.port) as sender:
        sender.publish("wake", b"up")
    with client(broker.port, "sleeper", clean=False) as sleeper:
        assert sleeper.received() == ("wake", b"up")


@pytest.mark.parametrize(
    ("topic", "size"),
    [
        ("big", 128 * 1024 + 1),
        ("a/b/c/d/e/f/g/h/i", 1),
        ("$SYS/uptime", 1),
        ("$aws/events/presence/connected/me", 1),
        ("x" * 257, 1),
    ],
    ids=["payload above 128 KiB", "eight slashes", "reserved topic", "event of AWS", "topic above 256 bytes"],
)
def test_a_publish_that_aws_iot_refuses_ends_the_connection(broker: Broker, topic: str, size: int) -> None:
    with client(broker.port) as sender:
        gone = queue.Queue[bool]()
        sender.paho.on_disconnect = lambda *_: gone.put(True)
        sender.paho.publish(topic, b"x" * size, 0)
        assert gone.get(timeout=5)


def test_largest_payload_passes(broker: Broker) -> None:
    with client(broker.port) as both:
        both.subscribe("big")
        both.publish("big", b"x" * 128 * 1024)
        assert len(both.received()[1]) == 128 * 1024


def test_clients_come_back_to_a_restarted_broker(broker: Broker) -> None:
    with client(broker.port, reconnect=True) as device:
        port = broker.port
        broker.stop()
        eventually(lambda: not device.paho.is_connected(), what="disconnected")
        broker.start()
        assert broker.port == port
        eventually(device.paho.is_connected, what="reconnected")
        device.subscribe("after")
        device.publish("after", b"restart")
        assert device.received() == ("after", b"restart")


def test_a_taken_port_is_an_error_and_a_stopped_broker_frees_its_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        Broker(taken.getsockname()[1]).start()
    with Broker() as broker:
        port = broker.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()


def test_a_client_that_vanishes_harms_nobody(broker: Broker) -> None:
    socket.create_connection(("127.0.0.1", broker.port)).close()
    with socket.create_connection(("127.0.0.1", broker.port)) as garbage:
        garbage.sendall(b"GET / HTTP/1.1\r\n\r\n")
    with client(broker.port) as both:
        both.subscribe("still")
        both.publish("still", b"here")
        assert both.received() == ("still", b"here")


def test_stop_is_quick_while_clients_publish() -> None:
    with Broker() as broker:
        flooding = [threading.Thread(target=flood, args=[plain(broker.port, f"c{i}")]) for i in range(3)]
        for thread in flooding:
            thread.start()
        threading.Event().wait(0.1)  # the broker is in the middle of it
        start = time.monotonic()
        broker.stop()
        assert time.monotonic() - start < 2
        for thread in flooding:
            thread.join(5)


def test_what_comes_right_before_a_goodbye_arrives(broker: Broker) -> None:
    with client(broker.port) as receiver:
        receiver.subscribe("a/b")
        with plain(broker.port, "hasty") as hasty:
            hasty.sendall(PUBLISH * 20 + GOODBYE)
        assert [receiver.received() for _ in range(20)] == [("a/b", b"x")] * 20


@pytest.fixture
def watcher(broker: Broker) -> Iterator[Client]:
    with client(broker.port, "watcher") as watching:
        watching.subscribe("$aws/events/presence/#")
        watching.subscribe("#")  # has no part of $ topics
        yield watching


def event(watcher: Client) -> dict[str, Any]:
    """The next lifecycle event, checked for what all of them have in common."""
    topic, payload = watcher.received()
    body: dict[str, Any] = json.loads(payload)
    assert topic == f"$aws/events/presence/{body['eventType']}/{body['clientId']}"
    assert abs(body["timestamp"] / 1000 - time.time()) < 60
    assert body["principalIdentifier"]
    return body


def ended(watcher: Client) -> tuple[str, bool, str]:
    while (body := event(watcher))["eventType"] != "disconnected":
        pass
    return body["clientId"], body["clientInitiatedDisconnect"], body["disconnectReason"]


def test_connections_are_told_with_session_and_version(broker: Broker, watcher: Client) -> None:
    told = []
    for _ in range(2):
        with client(broker.port, "thing"):
            told.append(event(watcher))
        told.append(event(watcher))
    assert [body["eventType"] for body in told] == ["connected", "disconnected"] * 2
    assert [body["versionNumber"] for body in told] == [0, 0, 1, 1]
    sessions = [body["sessionIdentifier"] for body in told]
    assert sessions[0] == sessions[1] != sessions[2] == sessions[3]
    assert told[0]["ipAddress"] == "127.0.0.1"
    assert "clientInitiatedDisconnect" not in told[0]
    assert (told[1]["clientInitiatedDisconnect"], told[1]["disconnectReason"]) == (True, "CLIENT_INITIATED_DISCONNECT")


@pytest.mark.parametrize(
    ("sent", "initiated", "reason"),
    [
        (GOODBYE, True, "CLIENT_INITIATED_DISCONNECT"),
        (b"", False, "CONNECTION_LOST"),
        (PUBLISH.replace(b"a/b", b"$x/"), False, "CLIENT_ERROR"),
        (b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02me", False, "CLIENT_ERROR"),
    ],
    ids=["goodbye", "nothing", "forbidden topic", "second CONNECT"],
)
def test_why_a_connection_ended_is_told(
    broker: Broker, watcher: Client, sent: bytes, initiated: bool, reason: str
) -> None:
    with plain(broker.port, "thing") as thing:
        thing.sendall(sent)
        if sent:
            assert ended(watcher) == ("thing", initiated, reason)
    if not sent:
        assert ended(watcher) == ("thing", initiated, reason)


def test_a_silent_client_is_given_up_after_its_keep_alive(broker: Broker, watcher: Client) -> None:
    with plain(broker.port, "thing", keep_alive_s=1) as thing:
        assert thing.recv(1) == b""
        assert ended(watcher) == ("thing", False, "MQTT_KEEP_ALIVE_TIMEOUT")


@pytest.mark.parametrize("clean", [True, False])
def test_a_client_id_belongs_to_whoever_connected_last(broker: Broker, watcher: Client, clean: bool) -> None:
    with client(broker.port, "thing", clean) as earlier, client(broker.port, "thing", clean) as later:
        assert ended(watcher) == ("thing", False, "DUPLICATE_CLIENTID")
        eventually(lambda: not earlier.paho.is_connected(), what="the earlier one is disconnected")
        later.subscribe("still")
        later.publish("still", b"here")
        assert later.received() == ("still", b"here")


def test_a_stop_of_the_broker_loses_nobody(broker: Broker) -> None:
    told: list[str] = []
    with client(broker.port, "thing"):
        broker.on_publish.append(lambda _client, topic, _payload: told.append(topic))
        broker.stop()
    assert told == []
