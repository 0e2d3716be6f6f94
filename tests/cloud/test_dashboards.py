"""The dashboards show what the handlers write: their queries run over real lines, their metrics exist."""

import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import requests

from cloud_support import Faults, sample
from localdev.cloud import LocalCloud, dashboards, insights
from localdev.cloud.api import KEY
from localdev.cloud.aws import Response
from localdev.cloud.insights import Event
from support import eventually

TURBINE = ("edgeml-turbine", "/edgeml/turbine")


def widgets(cloud: LocalCloud, name: str) -> list[dict[str, Any]]:
    body = cloud.aws.client("cloudwatch").get_dashboard(DashboardName=name)["DashboardBody"]
    return [widget["properties"] for widget in json.loads(body)["widgets"]]


@pytest.fixture
def filled(cloud: LocalCloud, faults: Faults) -> LocalCloud:
    now = time.time()
    ingest = cloud.function("IngestEdgeLogs")
    for i in range(3):
        ingest.invoke(sample("iot_rawdata") | {"data": {"ts": now - i, "values": [0, 0, 0, 2 + i, 1.5, 48]}})
        for topic, version in (("device/t1/logs", "1.0.0"), ("device/t2/logs", "1.1.0")):
            ingest.invoke(sample("iot_inference") | {"ts": now - i, "topic": topic, "model_version": version})
    ingest.invoke(sample("iot_inference") | {"ts": now, "topic": "device/t1/logs"})  # delivered twice
    other = {"topic": "device/t3/logs", "model_name": "Press", "anomalies": [True] * 7, "values": [9.0] * 7}
    ingest.invoke(sample("iot_inference") | {"ts": now} | other)  # of another machine, with another number of values
    ingest.invoke(sample("iot_rawdata") | {"topic": "device/t3/logs", "data": {"ts": now, "values": [9.0] * 7}})
    face = {"BoundingBox": {"Width": 1, "Height": 1}, "Emotions": [{"Type": "HAPPY", "Confidence": 90.0}]}
    faults.answer("rekognition", "DetectFaces", Response(json.dumps({"FaceDetails": [face]}).encode()))
    event = sample("s3_face_created")
    event["Records"][0]["eventTime"] = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(now))
    cloud.function("RekognizeEmotions").invoke(event)
    assert cloud.api is not None
    for features in ("1,2", "x"):
        url = f"{cloud.api.url}/live/liveinference"
        requests.get(url, {"features": features}, headers={"x-api-key": KEY}, timeout=10)
    cloud.drain()
    return cloud


def test_dashboards_show_what_happened(filled: LocalCloud, tmp_path: Path) -> None:
    now = time.time()
    events = dashboards.events(filled.aws, TURBINE[1], now - 60, now + 60)
    raw, anomalies, latest, versions = (insights.run(w["query"], events) for w in widgets(filled, TURBINE[0]))
    assert sum(row["rotor_rps"] for row in raw) / len(raw) == 1.5
    assert raw[0]["volts"] == 48
    assert sum(row["wind"] for row in anomalies) == 6  # not 7: a repeated line counts once
    assert sum(row["roll"] for row in anomalies) == 0
    assert {row["device"]: row["wind"] for row in latest} == {"t1": "1.31", "t2": "1.31"}
    assert {(row["model"], row["version"], row["devices"]) for row in versions} == {
        ("WindTurbine", "1.0.0", 1),
        ("WindTurbine", "1.1.0", 1),
        ("Press", "1.0.0", 1),
    }
    for name in ("edgeml-emotions", "edgeml-turbine", "edgeml-live-inference"):
        dashboards.draw(filled.aws, name, now - 60, now + 10, tmp_path / f"{name}.png", period_s=10)
        picture = cv2.imread(str(tmp_path / f"{name}.png"))
        assert picture is not None
        assert len(np.unique(picture[:, :, 0])) > 50  # lines and letters, not an empty sheet


def test_a_dashboard_without_data_is_drawn_all_the_same(cloud: LocalCloud, tmp_path: Path) -> None:
    dashboards.draw(cloud.aws, "edgeml-turbine", 1.7e9, 1.7e9 + 60, tmp_path / "empty.png")
    assert cv2.imread(str(tmp_path / "empty.png")) is not None


def test_each_feature_has_anomalies_of_its_own(cloud: LocalCloud) -> None:
    queries = [w["query"] for w in widgets(cloud, TURBINE[0]) if "Anomalies" in w["title"]]
    for index, feature in enumerate(("roll", "pitch", "yaw", "wind", "rotor", "voltage")):
        anomalies = ["1" if i == index else "0" for i in range(6)]
        line = " ".join(["9.0", "t1", "WindTurbine", "1.0.0", *anomalies, *"123456"])
        (row,) = insights.run(queries[0], [Event(9.0, "inference", line)])
        assert {name for name, count in row.items() if name != "t" and count} == {feature}


def test_metrics_of_the_dashboards_are_those_that_are_written(filled: LocalCloud) -> None:
    def written() -> set[tuple[str, str]]:
        metrics = filled.aws.client("cloudwatch").list_metrics()["Metrics"]
        return {(metric["Namespace"], metric["MetricName"]) for metric in metrics}

    expected = {
        ("EdgeML/Emotions", "HAPPY"),
        ("AWS/ApiGateway", "Latency"),
        ("EdgeML/LiveInference", "EndpointErrors"),
        ("EdgeML/LiveInference", "BadRequests"),
        ("EdgeML/Turbine", "Lines"),
    }
    eventually(lambda: expected <= written(), what="metrics")
    drawn = {
        tuple(entry[:2])
        for name in ("edgeml-emotions", "edgeml-live-inference")
        for properties in widgets(filled, name)
        for entry in properties["metrics"]
        if isinstance(entry[0], str) and entry[0] not in (".", "...")
    }
    assert {("EdgeML/Emotions", "HAPPY"), ("AWS/ApiGateway", "Latency"), ("AWS/ApiGateway", "Count")} <= drawn


def test_every_emotion_of_rekognition_has_a_line(cloud: LocalCloud) -> None:
    model = cloud.aws.client("rekognition").meta.service_model.shape_for("EmotionName")
    lines = {entry[1] for entry in widgets(cloud, "edgeml-emotions")[0]["metrics"]}
    assert lines == set(model.enum) - {"UNKNOWN"}


@pytest.mark.parametrize(
    "query",
    [
        "SOURCE 'g' | dedup x",
        "SOURCE 'g' | stats median(x)",
        "SOURCE 'g' | filter x > 3",
        "SOURCE 'g' | filter x like 3",
        "SOURCE 'g' | parse x y",
    ],
)
def test_a_query_that_is_not_understood_is_an_error(query: str) -> None:
    with pytest.raises(insights.QueryError):
        insights.run(query, [Event(0, "s", "m")])


def test_metric_math_and_shorthand() -> None:
    series = {"a": np.array([1.0, 2.0]), "b": np.array([4.0, 0.0])}
    np.testing.assert_array_equal(dashboards.evaluated("100 * (a + 1) / b", series), [50.0, np.inf])
