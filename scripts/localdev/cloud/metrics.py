"""CloudWatch metrics that AWS makes by itself: from lines in the embedded metric format, and of API Gateway.

They go straight into moto's memory, as AWS's own pass no API either: faults of PutMetricData do not reach them.
"""

from datetime import UTC, datetime
from typing import Any

from moto.cloudwatch.models import cloudwatch_backends

from localdev.cloud.aws import ACCOUNT, REGION


def embedded(line: dict[str, Any]) -> None:
    """A line in the embedded metric format, as Powertools' Metrics prints it."""
    at = datetime.fromtimestamp(line["_aws"]["Timestamp"] / 1000, UTC)
    for directive in line["_aws"]["CloudWatchMetrics"]:
        for names in directive["Dimensions"]:
            dimensions = {name: str(line[name]) for name in names}
            for metric in directive["Metrics"]:
                values = line[metric["Name"]]
                for value in values if isinstance(values, list) else [values]:
                    _put(directive["Namespace"], metric["Name"], value, metric.get("Unit", "None"), dimensions, at)


def api(name: str, status: int, milliseconds: float) -> None:
    """One request of an API: Count, Latency, 4XXError and 5XXError."""
    at = datetime.now(UTC)
    for metric, value, unit in (
        ("Count", 1.0, "Count"),
        ("Latency", milliseconds, "Milliseconds"),
        ("4XXError", float(400 <= status < 500), "Count"),
        ("5XXError", float(status >= 500), "Count"),
    ):
        _put("AWS/ApiGateway", metric, value, unit, {"ApiName": name}, at)


def _put(namespace: str, name: str, value: float, unit: str, dimensions: dict[str, str], at: datetime) -> None:
    pairs = [{"Name": key, "Value": text} for key, text in dimensions.items()]
    naive = at.replace(tzinfo=None)  # as moto keeps what comes through its API, and compares it with
    datum = {"MetricName": name, "Value": value, "Unit": unit, "Dimensions": pairs, "Timestamp": naive}
    cloudwatch_backends[ACCOUNT][REGION].put_metric_data(namespace, [datum])
