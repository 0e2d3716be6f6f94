"""Sinks in the network, against real servers that go away, say no, or make no sense."""

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from certificates import certificate
from edgeml import messages
from edgeml.component import Context
from edgeml.config import load
from edgeml.errors import ConfigError
from inferencer.assembly import check
from inferencer.config import Config
from inferencer.sinks import mqtt as mqtt_sink
from inferencer.sinks.mqtt import MqttSink
from localdev.cloud.broker import Broker
from localdev.mqtt_end import let_go
from sinks_support import frames, impatient, opened, put, sent
from support import eventually


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    return impatient(tmp_path / "work", monkeypatch)


@contextmanager
def subscriber(port: int, topic: str) -> Iterator[list[Any]]:
    got: list[Any] = []
    subscribed = threading.Event()
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.on_message = lambda client, data, message: got.append(message)
    client.on_subscribe = lambda *given: subscribed.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    client.subscribe(topic, 1)
    assert subscribed.wait(10)
    try:
        yield got
    finally:
        let_go(client)


def retained(port: int) -> set[str]:
    """The topics of which a new subscriber gets a message at once. The broker keeps one after it has passed it on."""
    with subscriber(port, "#") as kept, suppress(AssertionError):
        eventually(lambda: len(kept) == 2, 1, "two messages")
    return {message.topic for message in kept if message.retain}


@pytest.mark.parametrize(
    ("task", "topic"),
    [("regression", "x/bench/p/regression"), ("classification", "x/bench/p/a_b__"), ("anomaly", "x/bench/p/anomaly")],
)
def test_results_reach_a_broker_under_a_topic_that_they_fill(context: Context, task: str, topic: str) -> None:
    with Broker() as broker, subscriber(broker.port, "#") as got:
        settings = MqttSink(
            host="127.0.0.1", port=broker.port, topic="x/{thing}/{pipeline}/{label}", home_assistant="ha", retain=True
        )
        with opened(settings, context) as sink:
            result = put(sink, task=task)
            eventually(lambda: len(got) == 2, 10, "the announcement and the result")
        told = json.loads(got[0].payload)
        assert got[0].topic == "ha/sensor/edgeml_bench_p/config"
        assert (told["state_topic"], told["unique_id"]) == ("x/bench/p/+", "edgeml_bench_p")
        assert (got[1].topic, json.loads(got[1].payload)) == (topic, json.loads(messages.encode(result)))
        eventually(lambda: retained(broker.port) >= {got[0].topic, topic}, 10, "what the broker keeps")


@pytest.mark.parametrize("qos", [0, 1])
def test_results_wait_for_a_broker_that_is_away(context: Context, qos: int) -> None:
    with Broker() as broker:
        port = broker.port
    settings = MqttSink(host="127.0.0.1", port=port, qos=qos, every=2)
    with opened(settings, context) as sink:
        for frame in range(6):
            put(sink, frame)
        put(sink, 99, "classification", [])  # nothing was found: left out
        eventually(context.health.problems.current, 10, "the problem")
        assert context.health.problems.current()[0].code == "unreachable"
    assert sent(context) == 0
    with Broker(port), subscriber(port, "edgeml/bench/p") as got, opened(settings, context):  # after a restart
        eventually(lambda: len(got) == 3, 10, "all that waited")
        assert frames([message.payload for message in got]) == [0, 2, 4]


@pytest.mark.parametrize("keepalive_s", [30, 0], ids=["noticed", "idle for too long"])
def test_a_broker_that_came_back_is_found_again(
    context: Context, monkeypatch: pytest.MonkeyPatch, keepalive_s: int
) -> None:
    monkeypatch.setattr(mqtt_sink, "KEEPALIVE_S", keepalive_s)
    with Broker() as broker:
        settings = MqttSink(host="127.0.0.1", port=broker.port)
        with opened(settings, context) as sink:
            put(sink)
            eventually(lambda: sent(context) == 1, 10, "the first")
            broker.stop()
            broker.start()
            with subscriber(broker.port, "edgeml/#") as got:
                put(sink, 1)
                eventually(lambda: got, 10, "the second")
                assert frames([got[-1].payload]) == [1]


CONNACK = b"\x20\x02\x00\x00"
ODD = {
    "not authorised": b"\x20\x02\x00\x05",
    "the end": b"",
    "no packet": b"\xf0\x02\x00\x00",
    "a length without end": b"\x20\xff\xff\xff\xff\xff",
    "a short connack": b"\x20\x01\x00",
    "an end after the connection": CONNACK,
    "no MQTT": b"HTTP/1.1 400 Bad Request\r\n\r\n",
}


@pytest.mark.parametrize("fault", ODD)
def test_a_broker_that_makes_no_sense_costs_no_result(context: Context, fault: str) -> None:
    """The first connection gets the fault; the second what a broker says."""
    seen: list[bytes] = []

    def serve() -> None:
        with listener.accept()[0] as sock:
            sock.settimeout(10)
            sock.recv(1000)
            sock.sendall(ODD[fault])
        with listener.accept()[0] as sock:
            sock.settimeout(10)
            sock.recv(1000)
            sock.sendall(CONNACK)
            seen.append(sock.recv(5000))
            sock.sendall(b"\x40\x02\x00\x01")  # taken: packet 1
            sock.recv(1000)

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.settimeout(10)
        thread = threading.Thread(target=serve)
        thread.start()
        with opened(MqttSink(host="127.0.0.1", port=listener.getsockname()[1]), context) as sink:
            put(sink)
            eventually(lambda: sent(context) == 1, 10, "the result")
        thread.join(10)
    assert b'"frame_id":100' in seen[0]


def test_a_broker_that_says_nothing_is_given_up(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_sink, "ANSWER_S", 0.05)
    listener = socket.create_server(("127.0.0.1", 0))
    settings = MqttSink(host="127.0.0.1", port=listener.getsockname()[1])
    with closing(listener), opened(settings, context) as sink:
        put(sink)
        eventually(context.health.problems.current, 10, "the problem")
        assert "no answer to the connection" in context.health.problems.current()[0].text


def test_a_broker_is_told_user_and_password_over_tls(context: Context, tmp_path: Path) -> None:
    pem, connects = certificate(tmp_path), list[bytes]()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem)

    def serve() -> None:
        with tls.wrap_socket(listener.accept()[0], server_side=True) as sock:
            sock.settimeout(10)
            connects.append(sock.recv(1000))
            sock.sendall(CONNACK)
            sock.recv(5000)
            sock.sendall(b"\x40\x02\x00\x01")
            sock.recv(1000)

    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        listener.settimeout(10)
        thread = threading.Thread(target=serve)
        thread.start()
        settings = MqttSink(
            host="127.0.0.1", port=listener.getsockname()[1], tls=True, ca_file=str(pem),
            user="device", password_secret="broker",
        )  # fmt: skip
        with opened(settings, context) as sink:
            put(sink)
            eventually(lambda: sent(context) == 1, 10, "the result")
        thread.join(10)
    assert b"device" in connects[0]
    assert b"pass-word" in connects[0]


@pytest.mark.parametrize(
    ("sink", "place"),
    [
        ({"type": "webhook", "url": "http://h/"}, "url"),
        ({"type": "webhook", "url": "https:///x"}, "url"),
        ({"type": "webhook", "url": "https://h:99999/"}, "url"),
        ({"type": "webhook"}, "url"),
        ({"type": "mqtt"}, "host"),
        ({"type": "mqtt", "host": "h", "topic": "a/+"}, "topic"),
        ({"type": "mqtt", "host": "h", "topic": "a/{labels}"}, "topic"),
        ({"type": "mqtt", "host": "h", "topic": "a/x-{label}", "home_assistant": "ha"}, "topic"),
        ({"type": "mqtt", "host": "h", "qos": 2}, "qos"),
    ],
)
def test_what_can_never_work_is_refused_as_configuration(sink: dict[str, Any], place: str) -> None:
    parts = {"source": {"type": "topic", "topic": "t"}, "backend": {"type": "onnx", "model": "M"}}
    with pytest.raises(ConfigError, match=r"pipelines\.p\.sinks\.home") as caught:
        check(load(Config, {"pipelines": {"p": {**parts, "sinks": {"home": sink}}}}).pipelines, "thing")
    assert place in str(caught.value)
