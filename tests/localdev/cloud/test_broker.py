"""The broker against a real MQTT client, paho."""

import queue
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from localdev.cloud.broker import Broker
from support import eventually


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
        self.paho.disconnect()
        self.paho.loop_stop()


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
    [("big", 128 * 1024 + 1), ("a/b/c/d/e/f/g/h/i", 1), ("$SYS/uptime", 1), ("x" * 257, 1)],
    ids=["payload above 128 KiB", "eight slashes", "reserved topic", "topic above 256 bytes"],
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
