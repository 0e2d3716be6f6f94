"""Health messages of the components as CloudWatch metrics: lines in the embedded metric format.

They go into a log file of our own and from there the way of all lines, so that they too survive being offline.
Format: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

import logging
import time
from pathlib import Path
from typing import Any

import msgspec

from edgeml.log import kv
from edgeml.messages import HealthReport, decode
from edgeml.pace import Throttle

log = logging.getLogger(__name__)

MAX_METRICS = 100  # in one document
ROTATE_BYTES = 1 << 20
_KEEP = 20


def document(report: HealthReport, namespace: str, thing: str) -> bytes:
    """One EMF document: rates, latencies and gauges are metrics, counters and notes stay readable beside them."""
    values: dict[str, float] = {}
    metrics: list[dict[str, str]] = []

    def add(name: str, value: float, unit: str) -> None:
        if len(metrics) < MAX_METRICS:
            values[name] = value
            metrics.append({"Name": name, "Unit": unit})

    for name, rate in report.rates.items():
        add(f"{name}_per_s", rate, "Count/Second")
    for name, latency in report.latency_ms.items():
        add(f"{name}_p50", latency.p50, "Milliseconds")
        add(f"{name}_p99", latency.p99, "Milliseconds")
    for name, gauge in report.gauges.items():
        add(name, gauge, "None")
    add("uptime_s", report.uptime_s, "Seconds")
    directive = {"Namespace": namespace, "Dimensions": [["component", "thing"]], "Metrics": metrics}
    fields: dict[str, Any] = {
        "_aws": {"Timestamp": int(report.at * 1000), "CloudWatchMetrics": [directive]},
        "component": report.component,
        "thing": thing,
        **values,
        "counters": report.counters,
        "notes": report.notes,
        "last_error": report.last_error,
    }
    return msgspec.json.encode(fields)


class HealthLog:
    """Takes health messages and appends them to `health.log` in `folder`, rotated and bounded."""

    def __init__(self, folder: Path, namespace: str, thing: str) -> None:
        self.pattern = str(folder / "health*.log")
        self._folder = folder
        self._namespace, self._thing = namespace, thing
        self._refused = Throttle()
        folder.mkdir(mode=0o700, exist_ok=True)

    def received(self, topic: str, payload: bytes) -> None:
        try:
            report = decode(payload, HealthReport)
            line = document(report, self._namespace, self._thing) + b"\n"
            active = self._folder / "health.log"
            if active.exists() and active.stat().st_size + len(line) > ROTATE_BYTES:
                self._rotate(active)
            with active.open("ab") as file:
                file.write(line)
        except (ValueError, OverflowError, RecursionError, OSError) as error:  # any component may publish anything here
            if self._refused.due():
                log.warning("health message not kept %s", kv(topic=topic, reason=error, count=self._refused.count))

    def _rotate(self, active: Path) -> None:
        """Named by our own clock: a time that a message claims could take another's name, or never be the oldest."""
        active.rename(active.with_name(f"health_{time.time_ns()}.log"))
        for old in sorted(self._folder.glob("health_*.log"))[:-_KEEP]:
            old.unlink()
