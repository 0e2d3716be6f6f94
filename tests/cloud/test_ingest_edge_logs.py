import json
import time
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from cloud_support import Faults, error, failed_events, sample
from localdev.cloud import LocalCloud
from localdev.cloud.lambdas import FunctionError
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


@pytest.mark.parametrize("kind", ["log", None, 7, ["rawdata"]])
def test_any_other_type_is_an_error_that_names_it(cloud: LocalCloud, kind: object) -> None:
    with pytest.raises(FunctionError) as caught:
        invoke(cloud, sample("iot_rawdata") | {"type": kind})
    assert f"type {kind!r} from turbine-7" in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"ts": None},
        {"values": 3},
        {"anomalies": ["x"] * 6},
        {"anomalies": [True] * 5},
        {"topic": "device"},
        {"topic": "device//logs"},
        {"topic": "device/a b/logs"},
    ],
)
def test_a_malformed_message_is_an_error_and_leaves_no_line(cloud: LocalCloud, change: dict[str, Any]) -> None:
    before = lines(cloud, "inference")
    with pytest.raises(FunctionError, match=r"MessageError: inference from turbine-7"):
        invoke(cloud, inference(time.time()) | change)
    assert lines(cloud, "inference") == before


@pytest.mark.parametrize("days", [-15, 1])
def test_a_time_that_cloudwatch_refuses_is_an_error(cloud: LocalCloud, days: int) -> None:
    with pytest.raises(FunctionError, match="refuses its time"):
        invoke(cloud, rawdata(time.time() + days * 86400))


def test_log_lines_of_components_pass_by_and_other_types_are_kept_as_failed(cloud: LocalCloud) -> None:
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.connect(*cloud.mqtt_address)
    client.loop_start()
    shipped = {"thing": "press-1", "component": "edgeml.Inferencer", "lines": [{"timestamp": 1, "message": "started"}]}
    for message in (shipped, {"type": "weather"}):
        client.publish("device/press-1/logs", json.dumps(message), 1).wait_for_publish(10)
    client.disconnect()
    client.loop_stop()
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
