"""Local publish and subscribe, with the real client."""

import queue
from typing import Any

import pytest
from awsiot.greengrasscoreipc import model

from core_support import Connect
from localdev.core import LocalCore


def json_message(**content: Any) -> Any:
    return model.PublishMessage(json_message=model.JsonMessage(message=content))


def binary_message(content: bytes) -> Any:
    return model.PublishMessage(binary_message=model.BinaryMessage(message=content))


def subscribe(client: Any, topic: str, **options: Any) -> "queue.Queue[Any]":
    events: queue.Queue[Any] = queue.Queue()
    client.subscribe_to_topic(
        topic=topic,
        on_stream_event=events.put,
        on_stream_error=lambda _: True,
        on_stream_closed=lambda: None,
        **options,
    )
    return events


def allow(service: str, operation: str, *resources: str) -> dict[str, Any]:
    return {service: {"test": {"operations": [f"aws.greengrass#{operation}"], "resources": list(resources)}}}


def test_json_and_binary_messages_reach_another_component(connect: Connect) -> None:
    events = subscribe(connect("test.Subscriber"), "a/+/c")
    publisher = connect("test.Publisher")
    publisher.publish_to_topic(topic="a/b/c", publish_message=json_message(n=5, deep={"list": [1, None, 2.5]}))
    publisher.publish_to_topic(topic="a/x/c", publish_message=binary_message(b"\0\xff"))
    first, second = events.get(timeout=5), events.get(timeout=5)
    assert first.json_message.message == {"n": 5, "deep": {"list": [1, None, 2.5]}}
    assert first.json_message.context.topic == "a/b/c"
    assert second.binary_message.message == b"\0\xff"
    assert second.binary_message.context.topic == "a/x/c"


@pytest.mark.parametrize(
    ("topic", "mode", "hears_itself"),
    [
        ("t/a", None, True),
        ("t/+", None, False),
        ("t/#", None, False),
        ("t/a", "RECEIVE_MESSAGES_FROM_OTHERS", False),
        ("t/#", "RECEIVE_ALL_MESSAGES", True),
    ],
)
def test_receive_mode_and_its_defaults(connect: Connect, topic: str, mode: str | None, hears_itself: bool) -> None:
    client, other = connect("test.Self"), connect("test.Other")
    events = subscribe(client, topic, receive_mode=mode)
    client.publish_to_topic(topic="t/a", publish_message=json_message(by="self"))
    other.publish_to_topic(topic="t/a", publish_message=json_message(by="other"))
    expected = ["self", "other"] if hears_itself else ["other"]
    assert [events.get(timeout=5).json_message.message["by"] for _ in expected] == expected
    assert events.empty()


def test_own_means_the_same_component_not_the_same_connection(connect: Connect) -> None:
    first, second = connect("test.Same"), connect("test.Same")
    events = subscribe(first, "t/#")
    second.publish_to_topic(topic="t/a", publish_message=json_message(n=1))
    connect("test.Other").publish_to_topic(topic="t/a", publish_message=json_message(n=2))
    assert events.get(timeout=5).json_message.message == {"n": 2}


def test_overlapping_subscriptions_each_get_the_message(connect: Connect) -> None:
    client = connect()
    exact, wide = subscribe(client, "t/a"), subscribe(client, "t/#", receive_mode="RECEIVE_ALL_MESSAGES")
    client.publish_to_topic(topic="t/a", publish_message=json_message(n=1))
    assert exact.get(timeout=5).json_message.message == wide.get(timeout=5).json_message.message == {"n": 1}


def test_a_closed_subscription_gets_nothing_more(connect: Connect) -> None:
    client = connect()
    events: queue.Queue[Any] = queue.Queue()
    _, operation = client.subscribe_to_topic(topic="t", on_stream_event=events.put)
    operation.close().result(5)
    late = subscribe(client, "t")
    client.publish_to_topic(topic="t", publish_message=json_message(n=1))
    late.get(timeout=5)
    assert events.empty()


def test_a_subscriber_that_is_gone_does_not_hinder_the_publisher(core: LocalCore, connect: Connect) -> None:
    gone = connect("test.Gone")
    subscribe(gone, "t")
    gone.close().result(5)
    connect("test.Publisher").publish_to_topic(topic="t", publish_message=json_message(n=1))
    core.publish("t", {"n": 2})


@pytest.mark.parametrize("topic", ["a/+", "a/#", "a*b"])
def test_publishing_to_a_wildcard_is_refused(connect: Connect, topic: str) -> None:
    with pytest.raises(model.InvalidArgumentsError) as refused:
        connect().publish_to_topic(topic=topic, publish_message=json_message(n=1))
    assert "wildcard" in refused.value.message


def test_publishing_nothing_is_no_error_but_without_a_message_it_is(connect: Connect) -> None:
    connect().publish_to_topic(topic="t", publish_message=model.PublishMessage())
    with pytest.raises(model.ServiceError):
        connect().publish_to_topic(topic="t", publish_message=None)


@pytest.mark.parametrize("message", [model.PublishMessage(), None])
def test_lite_refuses_to_publish_nothing(connect_lite: Connect, message: Any) -> None:
    with pytest.raises(model.ServiceError):
        connect_lite().publish_to_topic(topic="t", publish_message=message)


def test_a_topic_is_required_and_authorization_comes_first(connect: Connect) -> None:
    with pytest.raises(model.UnauthorizedError) as empty:
        connect().publish_to_topic(topic="", publish_message=json_message(n=1))
    assert empty.value.message == "Resource cannot be empty"
    with pytest.raises(model.UnauthorizedError):
        connect("test.Nobody", {}).publish_to_topic(topic="a/+", publish_message=json_message(n=1))


def test_the_refusal_names_principal_operation_and_resource(connect: Connect) -> None:
    client = connect("test.Narrow", allow("aws.greengrass.ipc.pubsub", "PublishToTopic", "only/this"))
    client.publish_to_topic(topic="only/this", publish_message=json_message(n=1))
    with pytest.raises(model.UnauthorizedError) as denied:
        client.subscribe_to_topic(topic="only/this", on_stream_event=print)
    assert denied.value.message == (
        "Principal test.Narrow is not authorized to perform "
        "aws.greengrass.ipc.pubsub:aws.greengrass#SubscribeToTopic on resource only/this"
    )


def test_wildcards_of_mqtt_are_literal_in_pubsub_policies(connect: Connect) -> None:
    hash_only = connect("test.Hash", allow("aws.greengrass.ipc.pubsub", "*", "test/#"))
    star = connect("test.Star", allow("aws.greengrass.ipc.pubsub", "*", "test/*"))
    with pytest.raises(model.UnauthorizedError):
        hash_only.publish_to_topic(topic="test/a", publish_message=json_message(n=1))
    star.publish_to_topic(topic="test/a", publish_message=json_message(n=1))


def test_a_mebibyte_goes_through(connect: Connect) -> None:
    client = connect()
    events = subscribe(client, "t")
    client.publish_to_topic(topic="t", publish_message=binary_message(bytes(1024 * 1024)))
    assert len(events.get(timeout=5).binary_message.message) == 1024 * 1024


def test_a_wrong_token_is_denied(core: LocalCore) -> None:
    from awsiot import greengrasscoreipc
    from awsiot.eventstreamrpc import AccessDeniedError

    with pytest.raises(AccessDeniedError):
        greengrasscoreipc.connect(ipc_socket=str(core.socket), authtoken="WRONG", timeout=5.0)


def test_the_core_publishes_and_subscribes_itself(core: LocalCore, connect: Connect) -> None:
    client = connect()
    events = subscribe(client, "down")
    heard: queue.Queue[tuple[str, bytes]] = queue.Queue()
    stop = core.subscribe("up/#", lambda topic, payload: heard.put((topic, payload)))
    core.publish("down", b"bytes")
    assert events.get(timeout=5).binary_message.message == b"bytes"
    client.publish_to_topic(topic="up/x", publish_message=json_message(n=1))
    assert heard.get(timeout=5) == ("up/x", b'{"n":1.0}')
    stop()
    client.publish_to_topic(topic="up/x", publish_message=json_message(n=2))
    assert heard.empty()


def test_lite_ignores_receive_mode(connect_lite: Connect) -> None:
    client = connect_lite()
    events = subscribe(client, "t/#", receive_mode="RECEIVE_MESSAGES_FROM_OTHERS")
    client.publish_to_topic(topic="t/a", publish_message=json_message(n=1))
    assert events.get(timeout=5).json_message.message == {"n": 1}


def test_lite_limits(connect_lite: Connect) -> None:
    client = connect_lite()
    client.publish_to_topic(topic="t" * 256, publish_message=json_message(n=1))
    with pytest.raises(model.ServiceError):
        client.publish_to_topic(topic="t" * 257, publish_message=json_message(n=1))
    with pytest.raises(model.ServiceError) as too_many:
        client.publish_to_topic(topic="t", publish_message=json_message(numbers=list(range(300))))
    assert too_many.value.message is None  # Lite's error body lacks it


def test_lite_lacks_operations(connect_lite: Connect) -> None:
    with pytest.raises(model.ServiceError):
        connect_lite().list_components()
