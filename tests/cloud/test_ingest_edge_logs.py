import json
import time
from types import ModuleType
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion

from cloud_support import Faults, error, failed_events, sample
from localdev.cloud import LocalCloud
from localdev.mqtt_end import let_go
from ota_support import load_handler
from support import eventually


def lines(cloud: LocalCloud, stream: str) -> list[str]:
    logs = cloud.aws.client("logs")
    found = logs.filter_log_events(logGroupName="/edgeml/turbine", logStreamNames=[stream])["events"]
    return [event["message"] for event in found]


def invoke(cloud: LocalCloud, event: dict[str, Any]) -> None:
    cloud.function("IngestEdgeLogs").invoke(event)


def rawdata(ts: float) -> dict[str, Any]:
    event = sample("iot_rawdata")
    event["data"]["ts"] = ts
    return event


def inference(ts: float) -> dict[str, Any]:
    return sample("iot_inference") | {"ts": ts}


def test_raw_data_is_one_line_of_blank_separated_fields(cloud: LocalCloud) -> None:
    ts = round(time.time(), 3)
    invoke(cloud, rawdata(ts))
    assert f"{ts} turbine-7 -0.0081 0.0012 -0.1068 2.154 1.6106 47.7938" in lines(cloud, "rawdata")


def test_an_inference_adds_model_version_and_anomalies(cloud: LocalCloud) -> None:
    ts = round(time.time(), 3)
    invoke(cloud, inference(ts))
    expected = f"{ts} turbine-7 WindTurbine 1.0.0 0 0 0 1 0 0 0.21 0.18 0.4 1.31 0.33 0.27"
    assert expected in lines(cloud, "inference")


def test_the_time_of_the_event_is_that_of_the_message(cloud: LocalCloud) -> None:
    ts = time.time() - 3600
    invoke(cloud, rawdata(ts))
    logs = cloud.aws.client("logs")
    events = logs.filter_log_events(logGroupName="/edgeml/turbine", filterPattern=f'"{ts}"')["events"]
    assert [event["timestamp"] for event in events] == [round(ts * 1000)]


def refused(cloud: LocalCloud, event: dict[str, Any]) -> str:
    """The reason with which the event was set aside, at the first attempt."""
    failed_events(cloud)
    before = {stream: lines(cloud, stream) for stream in ("rawdata", "inference")}
    invoke(cloud, event)
    (failed,) = failed_events(cloud)
    assert failed["requestPayload"] == event
    assert {stream: lines(cloud, stream) for stream in before} == before
    return str(failed["responsePayload"]["errorMessage"])


@pytest.mark.parametrize("kind", ["log", None, 7, ["rawdata"]], ids=str)
def test_any_other_type_is_set_aside_with_a_reason_that_names_it(cloud: LocalCloud, kind: object) -> None:
    assert f"type {str(kind)!r} from turbine-7" in refused(cloud, sample("iot_rawdata") | {"type": kind})


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"ts": None}, "expected a finite number, found None"),
        ({"ts": "nan"}, "expected a number, found 'nan'"),
        ({"ts": "1_000"}, "expected a number, found '1_000'"),
        ({"ts": "\uff11"}, "expected a number"),
        ({"ts": 1e300}, "is no time"),
        ({"ts": -1}, "is no time"),
        ({"values": 3}, "expected a list of numbers, found 3"),
        ({"values": "123"}, "expected a list of numbers"),
        ({"anomalies": ["x"] * 6}, "expected a number, found 'x'"),
        ({"anomalies": [True] * 5}, "5 anomalies of 6 values"),
        ({"topic": "device"}, "list index out of range"),
        ({"topic": "device//logs"}, "names no thing"),
        ({"topic": "device/a b/logs"}, "names no thing"),
        ({"client_id": "turbine-8"}, "client 'turbine-8' speaks for turbine-7"),
        ({"client_id": "turbine-7#x"}, "speaks for turbine-7"),
    ],
    ids=str,
)
def test_a_malformed_message_is_set_aside_and_leaves_no_line(
    cloud: LocalCloud, change: dict[str, Any], reason: str
) -> None:
    told = refused(cloud, inference(time.time()) | change)
    assert told.startswith("inference from ")
    assert reason in told


def test_a_further_connection_of_the_core_speaks_for_the_same_thing(cloud: LocalCloud) -> None:
    ts = round(time.time(), 3)
    invoke(cloud, rawdata(ts) | {"client_id": "turbine-7#2"})
    assert any(line.startswith(f"{ts} turbine-7 ") for line in lines(cloud, "rawdata"))


@pytest.mark.parametrize("days", [-15, 1])
def test_a_time_that_cloudwatch_refuses_is_set_aside(cloud: LocalCloud, days: int) -> None:
    assert "refuses its time" in refused(cloud, rawdata(time.time() + days * 86400))


def test_a_name_that_was_cut_in_an_emoji_is_no_error(cloud: LocalCloud) -> None:
    ts = round(time.time(), 3)
    invoke(cloud, inference(ts) | {"model_name": "Wind\ud83d"})
    assert any(line.startswith(f"{ts} turbine-7 Wind? ") for line in lines(cloud, "inference"))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.characters(categories=["Cs"]),
    lambda inner: st.lists(inner, max_size=7) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
    max_leaves=10,
)


@pytest.fixture(scope="module")
def app() -> ModuleType:
    settings = {
        "LOG_GROUP": "/edgeml/turbine",
        "FAILED_QUEUE_URL": "http://127.0.0.1:1/q",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }
    return load_handler("ingest_edge_logs", settings)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["rawdata", "inference"]),
    field=st.sampled_from(
        ["type", "ts", "values", "anomalies", "model_name", "model_version", "topic", "client_id", "data"]
    ),
    value=VALUES,
)
def test_whatever_a_field_holds_is_a_line_or_a_reason(app: ModuleType, kind: str, field: str, value: Any) -> None:
    try:
        _, seconds, line, _ = app.parsed(sample(f"iot_{kind}") | {field: value})
    except app.MessageError:
        return
    assert 0 <= round(seconds * 1000) < 2**43
    line.encode()


def test_log_lines_of_components_pass_by_and_other_types_are_kept_as_failed(cloud: LocalCloud) -> None:
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.connect(*cloud.mqtt_address)
    client.loop_start()
    shipped = {"thing": "press-1", "component": "edgeml.Inferencer", "lines": [{"timestamp": 1, "message": "started"}]}
    for message in (shipped, {"type": "weather"}):
        client.publish("device/press-1/logs", json.dumps(message), 1).wait_for_publish(10)
    let_go(client)
    # The broker acknowledges before the rules see a message, so an idle cloud would not be proof.
    failed = eventually(lambda: failed_events(cloud), 30, "the failed event")
    assert [event["requestPayload"].get("type") for event in failed] == ["weather"]


def test_group_and_stream_are_made_when_they_are_missing(cloud: LocalCloud) -> None:
    cloud.aws.client("logs").delete_log_group(logGroupName="/edgeml/turbine")
    invoke(cloud, rawdata(time.time()))
    assert len(lines(cloud, "rawdata")) == 1


def test_throttling_is_waited_out(cloud: LocalCloud, faults: Faults) -> None:
    faults.answer("logs", "PutLogEvents", error("ThrottlingException"))
    ts = time.time()
    invoke(cloud, rawdata(ts))
    assert any(line.startswith(str(ts)) for line in lines(cloud, "rawdata"))


def test_anomalies_are_counted_for_the_alarm(cloud: LocalCloud) -> None:
    invoke(cloud, inference(time.time()))

    def counted() -> list[Any]:
        cloudwatch = cloud.aws.client("cloudwatch")
        found = cloudwatch.list_metrics(Namespace="EdgeML/Turbine", MetricName="Anomalies")["Metrics"]
        return [m["Dimensions"] for m in found]

    alarm = next(r for r in cloud.stack.of_type("AWS::CloudWatch::Alarm") if r.id == "AnomalyBurstAlarm")  # type: ignore[union-attr]
    assert eventually(counted) == [alarm.properties["Dimensions"]]
