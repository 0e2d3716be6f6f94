"""CloudWatch metrics that AWS makes by itself: from lines in the embedded metric format, and of API Gateway."""

import queue
import threading
from datetime import UTC, datetime
from typing import Any

from localdev.cloud.aws import LocalAws

LIMIT = 100_000
BATCH = 500  # PutMetricData takes 1,000


class Metrics:
    """Collects data points and writes them to moto in batches, so that a flood of requests stays cheap."""

    def __init__(self, aws: LocalAws) -> None:
        self._aws = aws
        self._queue: queue.Queue[tuple[str, dict[str, Any]] | None] = queue.Queue(LIMIT)
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> int:
        return self._queue.unfinished_tasks

    def embedded(self, line: dict[str, Any]) -> None:
        """A line in the embedded metric format, as Powertools' Metrics prints it."""
        at = datetime.fromtimestamp(line["_aws"]["Timestamp"] / 1000, UTC)
        for directive in line["_aws"]["CloudWatchMetrics"]:
            for names in directive["Dimensions"]:
                dimensions = [{"Name": name, "Value": str(line[name])} for name in names]
                for metric in directive["Metrics"]:
                    values = line[metric["Name"]]
                    for value in values if isinstance(values, list) else [values]:
                        self.put(
                            directive["Namespace"], metric["Name"], value, metric.get("Unit", "None"), dimensions, at
                        )

    def api(self, name: str, status: int, milliseconds: float) -> None:
        """One request of an API: Count, Latency, 4XXError and 5XXError."""
        dimensions = [{"Name": "ApiName", "Value": name}]
        at = datetime.now(UTC)
        for metric, value, unit in (
            ("Count", 1.0, "Count"),
            ("Latency", milliseconds, "Milliseconds"),
            ("4XXError", float(400 <= status < 500), "Count"),
            ("5XXError", float(status >= 500), "Count"),
        ):
            self.put("AWS/ApiGateway", metric, value, unit, dimensions, at)

    def put(
        self, namespace: str, name: str, value: float, unit: str, dimensions: list[dict[str, str]], at: datetime
    ) -> None:
        datum = {"MetricName": name, "Value": value, "Unit": unit, "Dimensions": dimensions, "Timestamp": at}
        self._queue.put_nowait((namespace, datum))

    def stop(self) -> None:
        self._queue.put(None)
        self._thread.join(5)

    def _run(self) -> None:
        cloudwatch = self._aws.client("cloudwatch")
        while (item := self._queue.get()) is not None:
            taken = [item]
            while len(taken) < BATCH and not self._queue.empty() and (more := self._queue.get()) is not None:
                taken.append(more)
            for namespace in {namespace for namespace, _ in taken}:
                data = [datum for owner, datum in taken if owner == namespace]
                cloudwatch.put_metric_data(Namespace=namespace, MetricData=data)
            for _ in taken:
                self._queue.task_done()
