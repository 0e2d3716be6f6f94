"""Every operation of a parity run, once, by the name under which the records hold its answer, in the order of a run."""

import itertools
from functools import partial
from typing import Any

from awsiot.greengrasscoreipc import model

from parity_configuration import change_events, reads, updates
from parity_support import (
    WAIT_S,
    Cloud,
    Local,
    Named,
    Operation,
    Probe,
    binary_message,
    json_message,
    round_trip,
    through_the_cloud,
)

_PUBLISHED = ("probe/w", "probe/w/a", "probe/w/a/b", "probe/w/", "probe/q/c")
_EVERY_TYPE: dict[str, Any] = {
    "i": 5,
    "f": 0.5,
    "big": 2**53 + 1,
    "neg": -3,
    "t": True,
    "n": None,
    "s": 'ü€"\\ \n',
    "l": [1, 2.5, "x", []],
    "o": {},
    "e": "",
}
_ONE = json_message({"a": 1})


def operations() -> Named:
    """All, in their order: some change the configuration that later ones read."""
    yield from _local()
    yield from _sizes()
    yield from _iot()
    yield from reads()
    yield from updates()
    yield from change_events()
    yield from _components()


def _local() -> Named:
    yield "sub.response", lambda probe: Local(probe, "probe/x").response
    yield "pub.response", lambda probe: probe.ipc.publish_to_topic(topic="probe/none", publish_message=_ONE)
    yield "json.types", lambda probe: round_trip(probe, "probe/j", json_message(_EVERY_TYPE))
    yield "binary", lambda probe: round_trip(probe, "probe/b", binary_message(b"\x00\x01abc"))
    yield "binary.empty", lambda probe: round_trip(probe, "probe/b0", binary_message(b""))
    numbers = json_message({"v": 1.0, "e": 1e300, "x": 1e-7})
    yield "json.int_as_1.0", lambda probe: round_trip(probe, "probe/j1", numbers)
    for pattern in ("probe/w/+", "probe/w/#", "probe/w/*", "probe/+/c", "probe/#/c", "probe/w/"):
        yield f"wildcard {pattern}", partial(_heard_by, pattern=pattern)
    modes = ("RECEIVE_ALL_MESSAGES", "RECEIVE_MESSAGES_FROM_OTHERS")
    for mode, topic in itertools.product(modes, ("probe/m", "probe/m/+")):
        yield f"mode {mode} {topic}", partial(_heard_in, mode=mode, topic=topic)
    topics = ("probe/p/+", "probe/p/#", "probe/p/*", "", f"probe/{'x' * 250}", f"probe/{'x' * 300}")
    for topic in (*topics, "probe/1/2/3/4/5/6/7/8/9/10"):
        name = f"publish to {topic[:14]!r} ({len(topic)})"
        yield name, partial(round_trip, topic=topic, message=_ONE)
    yield "publish unauthorised", lambda probe: probe.ipc.publish_to_topic(topic="other/x", publish_message=_ONE)
    yield "subscribe unauthorised", lambda probe: Local(probe, "other/x").response
    yield "subscribe unauthorised wildcard", lambda probe: Local(probe, "#").response
    nothing = model.PublishMessage()
    yield "publish no message", lambda probe: probe.ipc.publish_to_topic(topic="probe/x", publish_message=nothing)
    yield "two subscriptions overlap", _overlap
    yield "300 publishes", _many
    yield "two clients", _two_clients


def _heard_by(probe: Probe, pattern: str) -> Any:
    subscription = Local(probe, pattern)
    for topic in _PUBLISHED:
        probe.ipc.publish_to_topic(topic=topic, publish_message=json_message({"t": topic}))
    subscription.close()
    return {"pattern": pattern, "topics": sorted(topic or "" for _, _, topic in subscription.got)}


def _heard_in(probe: Probe, mode: str, topic: str) -> int:
    subscription = Local(probe, topic, mode)
    probe.ipc.publish_to_topic(topic=topic.replace("+", "x"), publish_message=_ONE)
    subscription.close()
    return len(subscription.got)


def _overlap(probe: Probe) -> list[int]:
    both = Local(probe, "probe/ov"), Local(probe, "probe/ov")
    probe.ipc.publish_to_topic(topic="probe/ov", publish_message=_ONE)
    return [len(each.got) for each in both]


def _many(probe: Probe) -> Any:
    subscription = Local(probe, "probe/order")
    sent = [
        probe.ipc.publish_to_topic_async(topic="probe/order", publish_message=json_message({"i": number}))
        for number in range(300)
    ]
    failed = sum(1 for future in sent if future.exception(WAIT_S))
    subscription.close()
    heard = [message["i"] for _, message, _ in subscription.got]
    return {"got": len(heard), "failed": failed, "set": len(set(heard))}


def _two_clients(probe: Probe) -> list[int]:
    other = probe.connect()
    first, second = Local(probe, "probe/two"), Local(probe, "probe/two", client=other)
    for topic in ("probe/two", "probe/none"):  # what is answered last comes after all that was heard
        for client in (probe.ipc, other):
            client.publish_to_topic(topic=topic, publish_message=_ONE)
    heard = [len(first.got), len(second.got)]
    other.close().exception(WAIT_S)
    probe.ipc.publish_to_topic(topic="probe/two", publish_message=_ONE)
    first.close()
    return [*heard, len(first.got)]


def _sizes() -> Named:
    def sent(message: Any, topic: str) -> Operation:
        return lambda probe: len(round_trip(probe, topic, message)["got"])

    for size in (4000, 7000, 7200, 7300, 7400, 7500, 9000, 12000):
        yield f"size binary {size}", sent(binary_message(b"x" * size), "probe/s")
    for size in (7000, 9000, 9500, 9650, 9700, 9750, 9800, 9900, 12000):
        yield f"size json {size}", sent(json_message({"x": "y" * (size - 8)}), "probe/s")
    for size in (100, 200, 250, 300, 400):
        yield f"json list of {size} ints", sent(json_message({"l": list(range(size))}), "probe/l")
    for size in (50, 60, 70, 80, 100, 127, 200, 300):
        message = json_message({f"k{number}": number for number in range(size)})
        yield f"json object of {size} keys", sent(message, "probe/l")
    for depth in (10, 11, 12, 14, 15, 16, 20, 30, 40):
        yield f"json nested {depth}", sent(json_message(_nested(depth)), "probe/l")


def _nested(depth: int) -> Any:
    return {"a": _nested(depth - 1)} if depth else 1


def _iot() -> Named:
    def publish(topic: str = "probe/iot/a", **fields: Any) -> Operation:
        return lambda probe: probe.ipc.publish_to_iot_core(topic_name=topic, **fields)

    def trip(payload: bytes, topic: str = "probe/iot/a", **fields: Any) -> Operation:
        return lambda probe: through_the_cloud(probe, topic, payload, **fields)

    def count(payload: bytes, to: str, topic: str = "probe/iot/a") -> Operation:
        return lambda probe: len(through_the_cloud(probe, topic, payload, to)["got"])

    yield "iot roundtrip qos1", trip(b"hello")
    yield "iot roundtrip qos0", trip(b"hello", qos="0")
    yield "iot qos int", publish(payload=b"x", qos=1)
    yield "iot qos 2", publish(payload=b"x", qos="2")
    yield "iot no qos", publish(payload=b"x")
    yield "iot no payload", publish(qos="1")
    yield "iot empty payload", trip(b"")
    yield "iot sub +", count(b"x", "probe/iot/+")
    yield "iot sub #", count(b"x", "probe/#")
    yield "iot publish wildcard", publish("probe/iot/+", payload=b"x", qos="1")
    properties: dict[str, Any] = {
        "user_properties": [model.UserProperty(key="k", value="v")],
        "content_type": "text/plain",
        "response_topic": "probe/r",
        "correlation_data": b"c",
        "message_expiry_interval_seconds": 60,
        "payload_format": "1",
    }
    yield "iot mqtt5 properties", trip(b"x", **properties)
    yield "iot retain", trip(b"x", "probe/iot/ret", retain=True)
    yield "iot publish unauthorised", publish("other/iot", payload=b"x", qos="1")
    yield "iot subscribe unauthorised", lambda probe: Cloud(probe, "other/iot").response
    yield "iot policy + one level", publish("plus/a/end", payload=b"x", qos="1")
    yield "iot policy + two levels", publish("plus/a/b/end", payload=b"x", qos="1")
    mine = "iot policy {iot:thingName}"
    yield mine, lambda probe: publish(f"mine/{probe.thing}/x", payload=b"x", qos="1")(probe)
    yield f"{mine} other", publish("mine/Other/x", payload=b"x", qos="1")
    for size in (4800, 4950, 5100, 6000, 7000, 7300):
        yield f"iot size {size}", count(b"x" * size, "probe/iot/s", "probe/iot/s")
    yield "iot size 9000", publish("probe/iot/s", payload=b"x" * 9000, qos="1")
    yield "iot burst 40 x 2000 B qos1", _burst
    yield "iot connection status", _connection_status


def _burst(probe: Probe) -> dict[str, int]:
    sent = [
        probe.ipc.publish_to_iot_core_async(topic_name="probe/iot/burst", payload=b"x" * 2000, qos="1")
        for _ in range(40)
    ]
    answers = [type(error).__name__ if (error := future.exception(WAIT_S)) else "ok" for future in sent]
    return {answer: answers.count(answer) for answer in set(answers)}


def _connection_status(probe: Probe) -> Any:
    return probe.ipc.subscribe_to_iot_core_connection_status(
        on_stream_event=lambda event: None, on_stream_error=lambda error: False, on_stream_closed=lambda: None
    )[0]


def _ignored(event: Any) -> None:
    """Nothing is expected."""


def _components() -> Named:
    quiet = {
        "on_stream_event": _ignored,
        "on_stream_error": lambda error: False,
        "on_stream_closed": lambda: None,
    }
    other, none = {"component_name": "test.Observer"}, {"test.None": "1.0.0"}
    metric = model.Metric(name="a", unit="Count", value=1.0)
    certificate = model.CertificateOptions(certificate_type="SERVER")
    calls: dict[str, tuple[str, dict[str, Any]]] = {
        "UpdateState RUNNING": ("update_state", {"state": "RUNNING"}),
        "GetSecretValue": ("get_secret_value", {"secret_id": "x"}),
        "ListComponents": ("list_components", {}),
        "GetComponentDetails": ("get_component_details", {"component_name": "test.Probe"}),
        "CreateLocalDeployment unauthorised": ("create_local_deployment", {"root_component_versions_to_add": none}),
        "RestartComponent unauthorised": ("restart_component", other),
        "StopComponent": ("stop_component", other),
        "PauseComponent": ("pause_component", other),
        "ListLocalDeployments": ("list_local_deployments", {}),
        "DeferComponentUpdate": ("defer_component_update", {"deployment_id": "x", "recheck_after_ms": 0}),
        "SubscribeToComponentUpdates": ("subscribe_to_component_updates", quiet),
        "SubscribeToValidateConfigurationUpdates": ("subscribe_to_validate_configuration_updates", quiet),
        "ValidateAuthorizationToken own": ("validate_authorization_token", {"token": "own"}),
        "ValidateAuthorizationToken bad": ("validate_authorization_token", {"token": "bad"}),
        "PutComponentMetric": ("put_component_metric", {"metrics": [metric]}),
        "GetThingShadow": ("get_thing_shadow", {"thing_name": "x"}),
        "SubscribeToCertificateUpdates": (
            "subscribe_to_certificate_updates",
            {"certificate_options": certificate, **quiet},
        ),
    }
    for name, (method, fields) in calls.items():
        yield name, partial(_call, method=method, fields=fields)


def _call(probe: Probe, method: str, fields: dict[str, Any]) -> Any:
    answer = getattr(probe.ipc, method)(**fields)
    return answer[0] if isinstance(answer, tuple) else answer  # the response of a stream comes with the stream
