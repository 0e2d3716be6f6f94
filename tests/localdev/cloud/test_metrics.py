import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from localdev.cloud import LocalCloud, metrics

LINE = {
    "_aws": {
        "Timestamp": 0,
        "CloudWatchMetrics": [
            {
                "Namespace": "My/App",
                "Dimensions": [["service"], []],
                "Metrics": [{"Name": "Lines", "Unit": "Count"}, {"Name": "Ratio"}],
            }
        ],
    },
    "service": "mine",
    "Lines": [1.0, 2.0],
    "Ratio": 0.5,
    "request": "not a metric",
}


@pytest.fixture
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud() as running:
        yield running


def total(cloud: LocalCloud, namespace: str, name: str, **dimensions: str) -> list[tuple[float, float, str]]:
    """Sum, number and unit of the last minute's values."""
    now = time.time()
    points = cloud.aws.client("cloudwatch").get_metric_statistics(
        Namespace=namespace,
        MetricName=name,
        Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
        StartTime=datetime.fromtimestamp(now - 60, UTC),
        EndTime=datetime.fromtimestamp(now + 60, UTC),
        Period=120,
        Statistics=["Sum", "SampleCount"],
    )["Datapoints"]
    return [(point["Sum"], point["SampleCount"], point["Unit"]) for point in points]


def test_a_line_in_the_embedded_format_becomes_metrics_with_each_set_of_dimensions(cloud: LocalCloud) -> None:
    line: dict[str, Any] = LINE | {"_aws": LINE["_aws"] | {"Timestamp": int(time.time() * 1000)}}  # type: ignore[operator]
    metrics.embedded(line)
    assert total(cloud, "My/App", "Lines", service="mine") == [(3.0, 2, "Count")]
    found = cloud.aws.client("cloudwatch").list_metrics(Namespace="My/App")["Metrics"]
    kinds = {(each["MetricName"], len(each["Dimensions"])) for each in found}
    assert kinds == {("Lines", 0), ("Lines", 1), ("Ratio", 0), ("Ratio", 1)}


def test_requests_of_an_api_are_counted_with_their_latency_and_errors(cloud: LocalCloud) -> None:
    for status, milliseconds in ((200, 10.0), (404, 20.0), (502, 30.0), (503, 40.0)):
        metrics.api("live", status, milliseconds)
    assert total(cloud, "AWS/ApiGateway", "Count", ApiName="live") == [(4, 4, "Count")]
    assert total(cloud, "AWS/ApiGateway", "4XXError", ApiName="live") == [(1, 4, "Count")]
    assert total(cloud, "AWS/ApiGateway", "5XXError", ApiName="live") == [(2, 4, "Count")]
    assert total(cloud, "AWS/ApiGateway", "Latency", ApiName="live") == [(100, 4, "Milliseconds")]
