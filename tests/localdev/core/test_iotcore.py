"""IoT Core operations through a real broker, with the real client."""

import queue
import threading
from collections.abc import Iterator
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from awsiot.greengrasscoreipc import model
from paho.mqtt.enums import CallbackAPIVersion

from core_support import Connect
from localdev.cloud.broker import Broker
from localdev.core import LocalCore
from localdev.core.mqtt import SPOOL_BYTES
from localdev.mqtt_end import let_go
from support import eventually


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    with Broker() as running:
        yield running


@pytest.fixture
def online(tmp_path: Path, broker: Broker) -> Iterator[LocalCore]:
    with LocalCore(tmp_path / "core", mqtt_url=broker.url, thing_name="online") as running:
        eventually(lambda: running.online, what="online")
        yield running


def subscribe(client: Any, topic: str, qos: Any = "1") -> "queue.Queue[Any]":
    events: queue.Queue[Any] = queue.Queue()
    client.subscribe_to_iot_core(topic_name=topic, qos=qos, on_stream_event=events.put, on_stream_error=lambda _: True)
    return events


@pytest.fixture
def client(online: LocalCore, connect_to: Connect) -> Any:
    return connect_to(online)


@pytest.mark.parametrize("qos", ["0", "1", 1])
def test_a_message_goes_to_the_broker_and_back(client: Any, qos: Any) -> None:
    events = subscribe(client, "device/+/out", qos)
    client.publish_to_iot_core(topic_name="device/x/out", qos=qos, payload=b"\0bytes")
    message = events.get(timeout=5).message
    assert (message.topic_name, message.payload) == ("device/x/out", b"\0bytes")


@pytest.mark.parametrize("profile", ["java", "lite"])
def test_a_retained_message_comes_after_the_answer(
    profile: str, tmp_path: Path, broker: Broker, connect_to: Connect
) -> None:
    """A client takes the first frame of a stream for its answer."""
    with LocalCore(tmp_path / "gg", profile=profile, mqtt_url=broker.url, thing_name=f"retained-{profile}") as core:
        eventually(lambda: core.online, what="online")
        client, cloud = connect_to(core), paho.Client(CallbackAPIVersion.VERSION2)
        cloud.connect("127.0.0.1", broker.port)
        cloud.loop_start()
        cloud.publish(f"kept/{profile}", b"1", 1, retain=True).wait_for_publish(5)
        for _ in range(20):
            assert subscribe(client, f"kept/{profile}").get(timeout=5).message.payload == b"1"
        cloud.publish(f"kept/{profile}", b"", 1, retain=True).wait_for_publish(5)
        let_go(cloud)


def test_an_empty_payload_is_a_message(client: Any) -> None:
    events = subscribe(client, "empty")
    client.publish_to_iot_core(topic_name="empty", qos="1", payload=b"")
    assert not events.get(timeout=5).message.payload


def test_two_subscriptions_of_a_filter_end_one_by_one(client: Any) -> None:
    first: queue.Queue[Any] = queue.Queue()
    _, operation = client.subscribe_to_iot_core(topic_name="two", qos="1", on_stream_event=first.put)
    second = subscribe(client, "two")
    operation.close().result(5)
    client.publish_to_iot_core(topic_name="two", qos="1", payload=b"x")
    second.get(timeout=5)
    assert first.empty()


@pytest.mark.parametrize(
    ("request_fields", "error", "text"),
    [
        ({"qos": "1", "payload": b""}, model.InvalidArgumentsError, "Topic is required"),
        ({"topic_name": "t", "payload": b""}, model.InvalidArgumentsError, "QoS is required"),
        ({"topic_name": "t", "qos": "1"}, model.InvalidArgumentsError, "Payload is required"),
        ({"topic_name": "t", "qos": "2", "payload": b""}, model.InvalidArgumentsError, "Invalid QoS value: 2"),
        ({"topic_name": "t/+", "qos": "1", "payload": b""}, model.ServiceError, "wildcard"),
        ({"topic_name": "t" * 257, "qos": "1", "payload": b""}, model.ServiceError, "no larger than 256 bytes"),
        (
            {"topic_name": "a/b/c/d/e/f/g/h/i", "qos": "1", "payload": b""},
            model.ServiceError,
            "no more than 7 forward slashes",
        ),
        (
            {"topic_name": "t", "qos": "1", "payload": bytes(131_073)},
            model.ServiceError,
            "exceeds the configured limit of 131072 bytes",
        ),
    ],
)
def test_requests_that_are_refused(
    connect: Connect, request_fields: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error) as refused:
        connect().publish_to_iot_core(**request_fields)
    assert text in str(getattr(refused.value, "message", ""))


def test_basic_ingest_topics_do_not_count_their_prefix(client: Any) -> None:
    client.publish_to_iot_core(topic_name="$aws/rules/rule/a/b/c/d/e/f/g", qos="0", payload=b"x")


def test_policies_are_mqtt_filters_and_the_refusal_is_short(connect: Connect) -> None:
    policy = {"aws.greengrass.ipc.mqttproxy": {"p": {"operations": ["*"], "resources": ["a/+/c", "b/#"]}}}
    client = connect("test.Narrow", policy)
    for topic in ("a/x/c", "b/y/z", "b"):
        client.publish_to_iot_core(topic_name=topic, qos="1", payload=b"")
    with pytest.raises(model.UnauthorizedError) as refused:
        client.publish_to_iot_core(topic_name="a/x/y/c", qos="1", payload=b"")
    assert refused.value.message == "Not Authorized"


def test_offline_the_java_core_keeps_qos_1_up_to_its_cap_and_refuses_qos_0(connect: Connect) -> None:
    client = connect()
    with pytest.raises(model.ServiceError) as refused:
        client.publish_to_iot_core(topic_name="t", qos="0", payload=b"x")
    assert refused.value.message == "Publish to topic t failed: Device is offline. Dropping QoS 0 message."
    for _ in range(SPOOL_BYTES // 131_072):
        client.publish_to_iot_core(topic_name="t", qos="1", payload=bytes(131_072))
    with pytest.raises(model.ServiceError) as full:
        client.publish_to_iot_core(topic_name="t", qos="1", payload=b"x")
    assert full.value.message == "Publish to topic t failed: Message spool is full. Message could not be added."


def test_what_was_kept_offline_arrives_once_the_broker_is_there(tmp_path: Path, connect_to: Connect) -> None:
    with Broker() as broker:
        pass  # its port is free again, and known
    try:
        with LocalCore(tmp_path / "core", mqtt_url=broker.url, thing_name="late") as core:
            client = connect_to(core)
            events: queue.Queue[Any] = queue.Queue()
            subscribed, _ = client.subscribe_to_iot_core_async(topic_name="kept", qos="1", on_stream_event=events.put)
            for number in range(12):
                client.publish_to_iot_core(topic_name="kept", qos="1", payload=str(number).encode())
            with pytest.raises(FutureTimeout):
                subscribed.result(0.2)  # a subscription waits until there is a connection
            broker.start()
            subscribed.result(10)
            received = [events.get(timeout=10).message.payload for _ in range(12)]
    finally:
        broker.stop()
    assert received == [str(number).encode() for number in range(12)]


def test_after_the_broker_has_restarted_subscriptions_are_there_again(tmp_path: Path, connect_to: Connect) -> None:
    with Broker() as broker, LocalCore(tmp_path / "core", mqtt_url=broker.url, thing_name="again") as core:
        client = connect_to(core)
        events = subscribe(client, "t")
        broker.stop()
        eventually(lambda: not core.online, what="offline")
        client.publish_to_iot_core(topic_name="t", qos="1", payload=b"kept")
        broker.start()
        assert events.get(timeout=10).message.payload == b"kept"


def test_lite_refuses_at_once_when_offline(connect_lite: Connect) -> None:
    with pytest.raises(model.ServiceError):
        connect_lite().publish_to_iot_core(topic_name="t", qos="1", payload=b"x")


def test_lite_limits_of_a_connection(tmp_path: Path, broker: Broker, connect_to: Connect) -> None:
    with LocalCore(tmp_path / "core", profile="lite", mqtt_url=broker.url, thing_name="lite") as core:
        client = connect_to(core)
        eventually(lambda: core.online, what="online")
        events = subscribe(client, "t")
        client.publish_to_iot_core(topic_name="t", qos="0", payload=bytes(5_000))  # dropped on the way down
        client.publish_to_iot_core(topic_name="t", qos="0", payload=b"small")
        assert events.get(timeout=5).message.payload == b"small"
        burst = [client.publish_to_iot_core_async(topic_name="t", qos="1", payload=bytes(4_000)) for _ in range(10)]
        outcomes = [future.exception(5) for future in burst]
    assert any(isinstance(outcome, model.ServiceError) for outcome in outcomes)


@pytest.mark.parametrize("wrong", ["m2/#/a", "m2/a+", "+a", "a/b#", "#/", "a\0b"])
def test_one_bad_filter_is_refused_to_its_caller_and_ends_nothing(client: Any, online: LocalCore, wrong: str) -> None:
    events = subscribe(client, "fine")
    with pytest.raises(model.ServiceError) as refused:
        subscribe(client, wrong)
    assert "AWS_ERROR_MQTT5_SUBSCRIBE_OPTIONS_VALIDATION" in str(refused.value.message)
    client.publish_to_iot_core(topic_name="fine", qos="1", payload=b"x")
    assert events.get(timeout=5).message.payload == b"x"
    assert online.online


def test_bad_filters_of_before_the_connection_do_not_prevent_it(tmp_path: Path, connect_to: Connect) -> None:
    with Broker() as broker:
        pass
    try:
        with LocalCore(tmp_path / "core", mqtt_url=broker.url, thing_name="bad-first") as core:
            client = connect_to(core)
            with pytest.raises(model.ServiceError):
                subscribe(client, "m2/#/a")
            broker.start()
            events = subscribe(client, "fine")
            client.publish_to_iot_core(topic_name="fine", qos="1", payload=b"x")
            assert events.get(timeout=10).message.payload == b"x"
    finally:
        broker.stop()


def test_a_filter_that_another_covers_costs_nothing_and_outlives_it(client: Any) -> None:
    _, wide = client.subscribe_to_iot_core(topic_name="cov/#", qos="1", on_stream_event=lambda _: None)
    subscribe(client, "cov/#/a")  # no filter, but covered: the nucleus asks nobody
    events = subscribe(client, "cov/a")
    client.publish_to_iot_core(topic_name="cov/a", qos="1", payload=b"1")
    assert events.get(timeout=5).message.payload == b"1"
    wide.close().result(5)
    client.publish_to_iot_core(topic_name="cov/a", qos="1", payload=b"2")
    assert events.get(timeout=5).message.payload == b"2"
    assert events.empty()


def test_no_thread_is_left(tmp_path: Path, broker: Broker) -> None:
    before = set(threading.enumerate())
    with LocalCore(tmp_path / "core", mqtt_url=broker.url) as core:
        eventually(lambda: core.online, what="online")
    assert not [thread for thread in set(threading.enumerate()) - before if not thread.name.startswith("Dummy")]
