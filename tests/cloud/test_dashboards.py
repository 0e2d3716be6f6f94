"""The dashboards show what the handlers write: their queries run over real lines, their metrics exist."""

import json
import re
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
DASHBOARDS = ("edgeml-emotions", "edgeml-turbine", "edgeml-live-inference")
EXPECTED = {
    ("EdgeML/Emotions", "HAPPY"),
    ("AWS/ApiGateway", "Latency"),
    ("EdgeML/LiveInference", "Inferences"),
    ("EdgeML/LiveInference", "EndpointErrors"),
    ("EdgeML/LiveInference", "BadRequests"),
    ("EdgeML/Turbine", "Lines"),
}


def widgets(cloud: LocalCloud, name: str) -> list[dict[str, Any]]:
    body = cloud.aws.client("cloudwatch").get_dashboard(DashboardName=name)["DashboardBody"]
    return [widget["properties"] for widget in json.loads(body)["widgets"]]


@pytest.fixture(scope="module")
def filled(running_cloud: LocalCloud) -> LocalCloud:
    """A cloud in which something has happened, just now."""
    cloud, now = running_cloud, time.time()
    faults = cloud.aws.stand_ins[0]
    assert isinstance(faults, Faults)
    ingest = cloud.function("IngestEdgeLogs")
    for i in range(3):
        ingest.invoke(sample("iot_rawdata") | {"data": {"ts": now - i, "values": [0, 0, 0, 2 + i, 1.5, 48]}})
        for topic, version in (("device/t1/logs", "1.0.0"), ("device/t2/logs", "1.1.0")):
            told = {"topic": topic, "client_id": topic.split("/")[1], "model_version": version}
            ingest.invoke(sample("iot_inference") | {"ts": now - i} | told)
    ingest.invoke(
        sample("iot_inference") | {"ts": now, "topic": "device/t1/logs", "client_id": "t1"}
    )  # delivered twice
    other = {
        "topic": "device/t3/logs",
        "client_id": "t3",
        "model_name": "Press",
        "anomalies": [True] * 7,
        "values": [9.0] * 7,
    }
    ingest.invoke(sample("iot_inference") | {"ts": now} | other)  # of another machine, with another number of values
    ingest.invoke(
        sample("iot_rawdata") | {"topic": "device/t3/logs", "client_id": "t3", "data": {"ts": now, "values": [9.0] * 7}}
    )
    face = {"BoundingBox": {"Width": 1, "Height": 1}, "Emotions": [{"Type": "HAPPY", "Confidence": 90.0}]}
    faults.answer("rekognition", "DetectFaces", Response(json.dumps({"FaceDetails": [face]}).encode()))
    event = sample("s3_face_created")
    event["Records"][0]["eventTime"] = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(now))
    cloud.function("RekognizeEmotions").invoke(event)
    assert cloud.api is not None
    faults.answer("sagemaker", "/endpoints/", Response(b"4.2", headers={"Content-Type": "text/csv"}))
    for features in ("1,2", "1,2", "x"):  # the second finds no endpoint
        url = f"{cloud.api.url}/live/liveinference"
        requests.get(url, {"features": features}, headers={"x-api-key": KEY}, timeout=10)
    cloud.drain()
    eventually(lambda: written(cloud) >= EXPECTED, what="metrics")
    return cloud


def written(cloud: LocalCloud) -> set[tuple[str, str]]:
    metrics = cloud.aws.client("cloudwatch").list_metrics()["Metrics"]
    return {(metric["Namespace"], metric["MetricName"]) for metric in metrics}


def shown(cloud: LocalCloud, name: str) -> dict[str, dict[str, list[float]]]:
    """What a picture with one interval for all shows, by widget and label: values of lines, heights of bars."""
    now = time.time()
    found: dict[str, dict[str, list[float]]] = {}
    for axes in dashboards.figure(cloud.aws, name, now - 600, now + 10, period_s=1_000_000).axes:
        series = {str(line.get_label()): np.asarray(line.get_ydata(), np.float64) for line in axes.get_lines()}
        series |= {str(bars.get_label()): np.array([bar.get_height() for bar in bars]) for bars in axes.containers}
        finite = {label: values[np.isfinite(values)] for label, values in series.items()}
        found[axes.get_title()] = {
            label: np.round(values, 3).tolist() for label, values in finite.items() if len(values)
        }
    return found


def test_queries_find_what_happened(filled: LocalCloud) -> None:
    now = time.time()
    events = dashboards.events(filled.aws, TURBINE[1], now - 600, now + 60)
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


def test_pictures_show_the_values(filled: LocalCloud) -> None:
    assert shown(filled, "edgeml-emotions") == {
        "Emotions of the largest face, percent": {"Happy": [90]},
        "Images per emotion, per 1000000 s": {"Happy": [1]},
    }
    turbine = shown(filled, "edgeml-turbine")
    assert turbine["Wind (rps), rotor (rps) and voltage"] == {"wind_rps": [3], "rotor_rps": [1.5], "volts": [48]}
    assert turbine["Anomalies by feature, per 1000000 s"] == {
        "wind": [6],
        **{name: [0] for name in ("roll", "pitch", "yaw", "rotor", "voltage")},
    }
    live = shown(filled, "edgeml-live-inference")
    assert {label: len(values) for label, values in live.pop("Latency").items()} == {"p50": 1, "p99": 1}
    assert live == {
        "Requests per 1000000 s": {"Requests": [3]},
        "Errors, percent of requests": {"5xx": [33.333], "4xx": [33.333]},
        "Answers of the model and failures of its endpoint": {"Inferences": [1], "EndpointErrors": [1]},
    }


def test_times_are_readable_and_labels_do_not_overlap(filled: LocalCloud) -> None:
    now = time.time()
    drawn = dashboards.figure(filled.aws, "edgeml-turbine", now - 600, now + 10, period_s=2)
    cells = [cell.get_text().get_text() for axes in drawn.axes for t in axes.tables for cell in t.get_celld().values()]
    assert not [text for text in cells if re.fullmatch(r"1\d{9}.*", text)]
    assert any(re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d", text) for text in cells)
    assert all(len(axes.get_xticks()) <= 10 for axes in drawn.axes if axes.containers)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_picture_is_written_and_its_points_counted(filled: LocalCloud, tmp_path: Path, name: str) -> None:
    now, path = time.time(), tmp_path / "board.png"
    points = dashboards.draw(filled.aws, name, now - 600, now + 10, path)
    assert list(points) == [widget["title"] for widget in widgets(filled, name)], "the intervals are the dashboard's"
    assert all(points.values()), points
    assert cv2.imread(str(path)) is not None


@pytest.mark.parametrize("name", DASHBOARDS)
def test_titles_tell_the_interval_that_is_drawn(cloud: LocalCloud, name: str) -> None:
    titles = [axes.get_title() for axes in dashboards.figure(cloud.aws, name, 0, 60, period_s=2).axes]
    assert not [title for title in titles if "minute" in title]
    assert [title for title in titles if "per 2 s" in title]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_a_dashboard_without_data_is_drawn_without_points(cloud: LocalCloud, tmp_path: Path, name: str) -> None:
    points = dashboards.draw(cloud.aws, name, 1.7e9, 1.7e9 + 60, tmp_path / "empty.png")
    assert not any(points.values())
    assert cv2.imread(str(tmp_path / "empty.png")) is not None


def test_emotions_are_drawn_every_10_seconds_and_refreshed_as_often(cloud: LocalCloud) -> None:
    body = json.loads(cloud.aws.client("cloudwatch").get_dashboard(DashboardName="edgeml-emotions")["DashboardBody"])
    assert body["widgets"][0]["properties"]["period"] == 10
    assert body["periodOverride"] == "inherit", "or CloudWatch takes a longer one for longer times"
    assert cloud.stack is not None
    assert cloud.stack.outputs["EmotionsDashboardUrl"].endswith("name=edgeml-emotions;autoRefresh=10")


def test_each_feature_has_anomalies_of_its_own(cloud: LocalCloud) -> None:
    queries = [w["query"] for w in widgets(cloud, TURBINE[0]) if "Anomalies" in w["title"]]
    for index, feature in enumerate(("roll", "pitch", "yaw", "wind", "rotor", "voltage")):
        anomalies = ["1" if i == index else "0" for i in range(6)]
        line = " ".join(["9.0", "t1", "WindTurbine", "1.0.0", *anomalies, *"123456"])
        (row,) = insights.run(queries[0], [Event(9.0, "inference", line)])
        assert {name for name, count in row.items() if name != "t" and count} == {feature}


def test_metrics_of_the_dashboards_are_those_that_are_written(filled: LocalCloud) -> None:
    drawn = {
        tuple(entry[:2])
        for name in ("edgeml-emotions", "edgeml-live-inference")
        for properties in widgets(filled, name)
        for entry in properties["metrics"]
        if isinstance(entry[0], str) and entry[0] not in (".", "...")
    }
    missing = drawn - written(filled)
    assert {namespace for namespace, _ in missing} == {"EdgeML/Emotions"}, "of emotions that were not seen"
    assert len(missing) == 7


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
