"""What a Prometheus server is told at `/metrics`, and a collector by OTLP: made each time of what the Monitor knows.

Names of components, cameras and counters are what anybody on the core says they are. A Prometheus server keeps each
label value that it ever saw, so of each kind only the first that come are told.
"""

import math
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from edgeml.messages import HealthReport
from monitor.state import State
from monitor.views import DeviceState

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
MAX_VALUES = 128  # of a label, as long as this process runs; names of counters for each component
MAX_LABEL = 128  # characters


class Told(NamedTuple):
    """A metric: what its labels are and what it says. Counters end in _total."""

    labels: tuple[str, ...]
    text: str
    kind: Literal["gauge", "counter"] = "gauge"


METRICS = {
    "edgeml_device_info": Told(("thing", "version"), "1; the version is the Monitor's"),
    "edgeml_device_problems": Told(("component", "code"), "What needs attention now"),
    "edgeml_device_cpu_temperature_celsius": Told((), "The hottest sensor of the CPU"),
    "edgeml_device_cpu_throttled": Told((), "1 while the CPU is slowed down"),
    "edgeml_device_under_voltage": Told((), "1 while a Raspberry Pi's voltage is too low"),
    "edgeml_device_memory_free_bytes": Told((), "Memory that can be had"),
    "edgeml_device_memory_size_bytes": Told((), "All memory"),
    "edgeml_device_memory_stalled_ratio": Told((), "Part of a minute in which nothing ran, waiting for memory"),
    "edgeml_device_disk_free_bytes": Told(("folder",), "Room on the disk for users other than root"),
    "edgeml_device_disk_size_bytes": Told(("folder",), "Size of the disk"),
    "edgeml_device_disk_written_bytes_per_day": Told(("disk",), "Written in a day"),
    "edgeml_device_disk_life_used_ratio": Told(("disk",), "Part of its life that an eMMC has used, in tenths"),
    "edgeml_device_clock_synchronised": Told((), "1 while a time server keeps the clock right"),
    "edgeml_device_uptime_seconds": Told((), "Since boot"),
    "edgeml_device_network_up": Told((), "1 while there is a default route with a carrier"),
    "edgeml_device_name_lookup_seconds": Told((), "Until the name of the AWS IoT endpoint was resolved"),
    "edgeml_device_core_answer_seconds": Told((), "Until the core answered"),
    "edgeml_device_packages_bytes": Told(("component",), "Python packages on disk"),
    "edgeml_component_up": Told(("component",), "1 while it reports its health, 0 while it is silent"),
    "edgeml_component_info": Told(("component", "version"), "1"),
    "edgeml_component_waiting": Told(("component",), "1 while it says that it waits for something"),
    "edgeml_component_uptime_seconds": Told(("component",), "Since its start"),
    "edgeml_component_count_total": Told(("component", "name"), "Each other counter of its health", "counter"),
    "edgeml_component_gauge": Told(("component", "name"), "Each other gauge of its health"),
    "edgeml_component_latency_seconds": Told(("component", "name", "quantile"), "Each other latency of its health"),
    "edgeml_camera_up": Told(("camera",), "1 while frames come"),
    "edgeml_camera_frames_total": Told(("camera",), "Frames captured", "counter"),
    "edgeml_camera_frames_dropped_total": Told(("camera",), "Frames that came too fast", "counter"),
    "edgeml_camera_frames_undecodable_total": Told(("camera",), "Frames that were no picture", "counter"),
    "edgeml_camera_reconnects_total": Told(("camera",), "How often the source was opened again", "counter"),
    "edgeml_pipeline_info": Told(("pipeline", "camera", "model", "version"), "1; of the last result"),
    "edgeml_pipeline_inferences_total": Told(("pipeline",), "Results", "counter"),
    "edgeml_pipeline_found_total": Told(("pipeline",), "Results in which something was found", "counter"),
    "edgeml_pipeline_failed_total": Told(("pipeline",), "Inputs without a result", "counter"),
    "edgeml_pipeline_not_sent_total": Told(("pipeline",), "Results that a sink did not take", "counter"),
    "edgeml_pipeline_frames_skipped_total": Told(("pipeline",), "Frames for which there was no time", "counter"),
    "edgeml_pipeline_latency_seconds": Told(("pipeline", "quantile"), "From capture or arrival to the result"),
    "edgeml_pipeline_inference_seconds": Told(("pipeline", "quantile"), "The model alone"),
    "edgeml_monitor_refused_series_total": Told((), "What was not told, being too many of a kind", "counter"),
}

# Of a health report: component, part, and what it counts there -> a metric with the part's name as its one label.
PARTS = {
    ("CameraCapture", "cameras", "captured"): "edgeml_camera_frames_total",
    ("CameraCapture", "cameras", "dropped"): "edgeml_camera_frames_dropped_total",
    ("CameraCapture", "cameras", "undecodable"): "edgeml_camera_frames_undecodable_total",
    ("CameraCapture", "cameras", "reconnects"): "edgeml_camera_reconnects_total",
    ("Inferencer", "pipelines", "inferences"): "edgeml_pipeline_inferences_total",
    ("Inferencer", "pipelines", "found"): "edgeml_pipeline_found_total",
    ("Inferencer", "pipelines", "failed"): "edgeml_pipeline_failed_total",
    ("Inferencer", "pipelines", "not_sent"): "edgeml_pipeline_not_sent_total",
    ("Inferencer", "pipelines", "frames_skipped"): "edgeml_pipeline_frames_skipped_total",
    ("Inferencer", "pipelines", "total"): "edgeml_pipeline_latency_seconds",
    ("Inferencer", "pipelines", "inference"): "edgeml_pipeline_inference_seconds",
}


class Metrics(Collector):
    """What `state` knows, in Prometheus' text format; thread-safe."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._lock = threading.Lock()
        self._known: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)  # values that are told, by kind
        self._refused = 0
        self._values: dict[str, dict[tuple[str, ...], float]] = {}  # of the scrape under way
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        with self._lock:
            return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        return []

    def values(self) -> dict[str, dict[tuple[str, ...], float]]:
        """What is told now: values by the labels' values, by the name of the metric."""
        with self._lock:
            return self._gathered()

    def collect(self) -> Iterator[Metric]:
        for name, values in self._gathered().items():
            told = METRICS[name]
            make = CounterMetricFamily if told.kind == "counter" else GaugeMetricFamily
            family = make(name, told.text, labels=told.labels)
            for labels, value in values.items():
                family.add_metric(labels, value)
            yield family

    def _gathered(self) -> dict[str, dict[tuple[str, ...], float]]:
        self._values = {name: {} for name in METRICS}
        state, reports = self._state.snapshot(), self._state.reports()
        self._device(state)
        self._shown(state)
        for name, report in reports.items():
            self._report(name, report)
        self._values["edgeml_monitor_refused_series_total"][()] = self._refused
        return {name: values for name, values in self._values.items() if values}  # no sensor, no metric

    def _device(self, state: DeviceState) -> None:
        self._put("edgeml_device_info", (state.thing, state.version), 1)
        for key, vital in state.vitals.items():
            name = device_metric(key, vital.unit)
            subject = (vital.subject,) if vital.subject else ()
            if len(subject) == len(METRICS[name].labels):  # else it is the sum of what is told
                self._put(name, subject, vital.value)
        for labels, count in Counter((item.component, item.code) for item in state.attention).items():
            self._put("edgeml_device_problems", labels, count)

    def _shown(self, state: DeviceState) -> None:
        for component in state.components:
            self._put("edgeml_component_up", (component.name,), component.status != "silent")
            self._put("edgeml_component_waiting", (component.name,), component.status == "waiting")
            self._put("edgeml_component_info", (component.name, component.version), 1)
        for camera in state.cameras:
            self._put("edgeml_camera_up", (camera.name,), camera.live)
        for pipeline in state.pipelines:
            labels = pipeline.name, pipeline.camera, pipeline.model, pipeline.model_version
            self._put("edgeml_pipeline_info", labels, 1)

    def _report(self, name: str, report: HealthReport) -> None:
        self._put("edgeml_component_uptime_seconds", (f"edgeml.{name}",), report.uptime_s)
        for key, count in report.counters.items():
            self._put(*_series(name, key, "edgeml_component_count_total"), count)
        for key, value in report.gauges.items():
            self._put(*_series(name, key, "edgeml_component_gauge"), value)
        for key, latency in report.latency_ms.items():
            metric, labels = _series(name, key, "edgeml_component_latency_seconds")
            self._put(metric, (*labels, "0.5"), latency.p50 / 1000)
            self._put(metric, (*labels, "0.99"), latency.p99 / 1000)

    def _put(self, metric: str, labels: tuple[str, ...], value: float) -> None:
        texts = tuple(label.encode(errors="replace").decode()[:MAX_LABEL] for label in labels)
        if not math.isfinite(value):
            return
        if self._is_told(metric, texts):
            self._values[metric][texts] = value
        else:
            self._refused += 1

    def _is_told(self, metric: str, labels: tuple[str, ...]) -> bool:
        if not labels:
            return True
        first, *others = labels
        return self._knows(METRICS[metric].labels[:1], first) and self._knows((metric, first), "\0".join(others))

    def _knows(self, kind: tuple[str, ...], value: str) -> bool:
        known = self._known[kind]
        if value not in known and len(known) < MAX_VALUES:
            known.add(value)
        return value in known


def device_metric(vital: str, unit: str) -> str:
    """The metric of a vital, by the name that its check gave it."""
    return f"edgeml_device_{vital.partition(':')[0]}" + (f"_{unit}" if unit else "")


def _series(component: str, key: str, otherwise: str) -> tuple[str, tuple[str, ...]]:
    """The metric of what a report names `key`, and its labels: those of its camera or pipeline, or `otherwise`."""
    part, _, rest = key.partition(".")
    name, _, what = rest.rpartition(".")
    metric = PARTS.get((component, part, what)) if name else None
    return (metric, (name,)) if metric else (otherwise, (f"edgeml.{component}", key))
