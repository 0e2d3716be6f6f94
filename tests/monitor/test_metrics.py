"""What Prometheus is told: names that last, label values that are bounded, text that its parser takes."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from edgeml.frames import FrameWriter
from edgeml.messages import Problem
from monitor import metrics
from monitor.metrics import METRICS, Metrics
from monitor.state import State
from monitor.vitals.check import Vital
from monitor_support import QUIET
from support import ROOT, Standalone, eventually

FOLDER = ROOT / "components" / "monitor"
DASHBOARD = json.loads((FOLDER / "grafana.json").read_text(encoding="utf-8"))
PERCENTILES = {"p50": 10.0, "p99": 20.0}
RESULT: dict[str, Any] = {
    "pipeline": "faces",
    "model": {"name": "Face", "version": "1.0"},
    "source": {"camera": "front"},
    "task": "detection",
    "results": [],
    "latency_ms": {"queue": 1, "preprocess": 1, "inference": 1, "postprocess": 1},
    "device": "thing",
}


def report(**changes: Any) -> bytes:
    plain: dict[str, Any] = {"component": "x", "version": "1.1.0", "at": 1.0, "uptime_s": 60.0, "counters": {}}
    plain |= {"rates": {}, "latency_ms": {}, "gauges": {}, "notes": {}, "last_error": None}
    return json.dumps(plain | changes).encode()


CAMERAS = report(
    counters={f"cameras.front.{name}": 5 for name in ("captured", "dropped", "undecodable", "reconnects", "snapshots")},
    latency_ms={"cameras.front.write": PERCENTILES},
    gauges={"messages.dropped": 0},
)
PIPELINES = report(
    counters={f"pipelines.faces.{name}": 7 for name in ("inferences", "found", "failed", "not_sent", "events")},
    latency_ms={f"pipelines.faces.{name}": PERCENTILES for name in ("inference", "total")},
    gauges={"pipelines.faces.frames_skipped": 3},
)


def vitals() -> dict[str, Vital]:
    """One of each metric of the device, by the names that checks give them."""
    found = {"packages": Vital(9.0, unit="bytes")}  # the sum, which Prometheus can make
    for name, told in METRICS.items():
        if name.startswith("edgeml_device_") and name.partition("device_")[2] not in ("info", "problems"):
            unit = re.search(r"_(celsius|bytes_per_day|bytes|ratio|seconds)$", name)
            key = name.removeprefix("edgeml_device_").removesuffix(unit[0] if unit else "")
            subject = "/" if told.labels else ""
            found[f"{key}:{subject}" if subject else key] = Vital(1.5, unit=unit[1] if unit else "", subject=subject)
    return found


@pytest.fixture
def known(tmp_path: Path) -> Iterator[State]:
    """A state that knows some of everything."""
    problem = Problem(code="clock", subject="device", text="not set", since=1.0)
    state = State("thing", "1.1.0", lambda: [problem], vitals=vitals)
    state.neighbours.place(tmp_path)
    assert state.heard("edgeml/health/CameraCapture", CAMERAS)
    assert state.heard("edgeml/health/Inferencer", PIPELINES)
    assert state.result("edgeml/inference/faces", json.dumps(RESULT).encode())
    with FrameWriter("front", directory=tmp_path, width=8, height=6):
        yield state


def told(state: State) -> list[Sample]:
    return list(samples(Metrics(state).text()))


def samples(text: bytes) -> Iterator[Sample]:
    for family in text_string_to_metric_families(text.decode()):
        yield from family.samples


def value(found: list[Sample], name: str, /, **labels: str) -> float:
    (one,) = [sample.value for sample in found if sample.name == name and sample.labels == labels]
    return one


def test_all_that_is_promised_is_told_with_its_labels(known: State) -> None:
    found = told(known)
    assert {sample.name for sample in found} == METRICS.keys()
    for sample in found:
        assert set(sample.labels) == set(METRICS[sample.name].labels)


VALUES = [
    (5, "edgeml_camera_frames_total", {"camera": "front"}),
    (5, "edgeml_component_count_total", {"component": "edgeml.CameraCapture", "name": "cameras.front.snapshots"}),
    (7, "edgeml_pipeline_inferences_total", {"pipeline": "faces"}),
    (3, "edgeml_pipeline_frames_skipped_total", {"pipeline": "faces"}),
    (0.02, "edgeml_pipeline_latency_seconds", {"pipeline": "faces", "quantile": "0.99"}),
    (0.01, "edgeml_pipeline_inference_seconds", {"pipeline": "faces", "quantile": "0.5"}),
    (1, "edgeml_pipeline_info", {"pipeline": "faces", "camera": "front", "model": "Face", "version": "1.0"}),
    (1, "edgeml_component_up", {"component": "edgeml.Inferencer"}),
    (1, "edgeml_device_problems", {"component": "edgeml.Monitor", "code": "clock"}),
    (1.5, "edgeml_device_disk_free_bytes", {"folder": "/"}),
    (0, "edgeml_monitor_refused_series_total", {}),
]


@pytest.mark.parametrize(("expected", "name", "labels"), VALUES, ids=[name for _, name, _ in VALUES])
def test_values_are_those_of_the_reports(known: State, expected: float, name: str, labels: dict[str, str]) -> None:
    assert value(told(known), name, **labels) == expected


def test_each_number_is_told_once(known: State) -> None:
    names = [sample.labels.get("name") for sample in told(known)]
    assert "pipelines.faces.events" in names
    assert not {"cameras.front.captured", "pipelines.faces.inferences", "pipelines.faces.total"} & set(names)


def test_what_is_not_there_says_nothing() -> None:
    names = re.findall(r"# TYPE (\w+)", Metrics(State("thing", "1", tuple)).text().decode())
    assert names == ["edgeml_device_info", "edgeml_monitor_refused_series_total"]


NAMES = ['"} 1\nedgeml_fake 1\n', "<script>", "a\\", "a\\n", "é☃", "\x00\r\x1b", "{}", "", ",", "x" * 400]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_names_stay_names(name: str) -> None:
    state = State("thing", "1", tuple)
    assert state.heard(
        "edgeml/health/X", report(counters={name: 1, "z": 2}, gauges={name: 3}, latency_ms={name: PERCENTILES})
    )
    if 0 < len(name) <= 128 and "/" not in name:
        assert state.heard(f"edgeml/health/{name}", report(version=name))
    text = Metrics(state).text()
    found = list(samples(text))
    assert {sample.name for sample in found} <= METRICS.keys()
    assert value(found, "edgeml_component_count_total", component="edgeml.X", name="z") == 2
    assert value(found, "edgeml_component_count_total", component="edgeml.X", name=name[: metrics.MAX_LABEL]) == 1
    assert all(re.fullmatch(r"#.*|edgeml_\w+(\{.*\})? [-+.e0-9]+", line) for line in text.decode().split("\n")[:-1])


def test_names_that_become_one_are_told_once() -> None:
    state = State("thing", "1", tuple)
    state.heard("edgeml/health/X", report(counters={"x" * 200: 1, "x" * 300: 2}))
    value(told(state), "edgeml_component_count_total", component="edgeml.X", name="x" * metrics.MAX_LABEL)


def test_numbers_that_are_none_are_left_out() -> None:
    state = State("thing", "1", tuple)
    state.heard(
        "edgeml/health/X", report(gauges={"a": "nan", "b": "inf", "c": 1.0}, latency_ms={"d": {"p50": "nan", "p99": 1}})
    )
    names = [sample.labels.get("name") for sample in told(state)]
    assert names.count("c") == names.count("d") == 1
    assert not {"a", "b"} & set(names)


def test_a_flood_of_names_is_bounded_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_VALUES", 8)
    state = State("thing", "1", tuple)
    scrape, ever = Metrics(state), set[tuple[str, ...]]()
    state.heard("edgeml/health/First", report(counters={"kept": 1}))
    for turn in range(40):
        state.heard("edgeml/health/First", report(version=str(turn), counters={"kept": turn, f"count{turn}": 1}))
        state.heard(f"edgeml/health/Stranger{turn}", report())
        state.result(f"edgeml/inference/pipeline{turn}", json.dumps(RESULT).encode())
        found = list(samples(scrape.text()))
        ever |= {(sample.name, *sample.labels.values()) for sample in found}
        assert value(found, "edgeml_component_count_total", component="edgeml.First", name="kept") == turn
    several = sum(1 for told in METRICS.values() if len(told.labels) > 1)
    assert len(ever) < len(METRICS) * 8 + several * 8 * 8
    for name, most in {"edgeml_component_info": 16, "edgeml_component_up": 8, "edgeml_pipeline_info": 8}.items():
        assert sum(series[0] == name for series in ever) <= most
    assert value(found, "edgeml_monitor_refused_series_total") > 0


def test_the_readme_names_them_all() -> None:
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(edgeml_\w+)` \| (\w+) \| ([^|]*) \| ([^|]*) \|$", text, re.MULTILINE)
    assert rows == [
        (name, told.kind, ", ".join(f"`{label}`" for label in told.labels) or "-", told.text)
        for name, told in METRICS.items()
    ]


def expressions(panels: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    for panel in panels:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
        yield from expressions(panel.get("panels", []))


@pytest.mark.parametrize(("title", "expr"), list(expressions(DASHBOARD["panels"])))
def test_a_panel_asks_for_what_is_told(title: str, expr: str) -> None:
    selectors = re.findall(r"\b(edgeml_\w+)(?:\{([^}]*)\})?", expr)
    assert selectors, title
    for name, labels in selectors:
        assert name in METRICS, title
        allowed = {*METRICS[name].labels, "instance", "job"}
        assert set(re.findall(r"(\w+)\s*[=!]", labels)) <= allowed, title
        assert ("rate(" in expr or "increase(" in expr) == name.endswith("_total"), title


def test_the_dashboard_stands_by_itself() -> None:
    names = {variable["name"] for variable in DASHBOARD["templating"]["list"]}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) - {"__rate_interval", "__all"} <= names
    assert DASHBOARD["id"] is None
    identities = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(identities)) == len(identities)
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] == "query":
            assert set(re.findall(r"edgeml_\w+", json.dumps(variable))) <= METRICS.keys()
    legends = re.findall(r"\{\{(\w+)\}\}", json.dumps(DASHBOARD))
    assert set(legends) <= {label for told in METRICS.values() for label in told.labels} | {"instance"}


def test_scrapers_must_have_signed_in_and_reasons_are_for_them(tmp_path: Path) -> None:
    with Standalone("monitor", QUIET, tmp_path / "work") as running:
        eventually(lambda: "address=http://" in running.log, what="the page's address")
        base = f"http://{running.log.partition('address=http://')[2].split()[0]}"
        running.send("edgeml/health/CameraCapture", json.loads(CAMERAS))
        with httpx.Client(base_url=base, trust_env=False, timeout=10) as client:
            stranger = client.get("/metrics")
            assert (stranger.status_code, stranger.headers["www-authenticate"]) == (401, "Bearer")
            assert "edgeml_" not in stranger.text
            assert client.get("/metrics", auth=("prometheus", "wrong")).status_code == 401
            password = (tmp_path / "work" / "password").read_text().strip()
            assert client.get("/metrics", headers={"Authorization": f"Bearer {password}"}).status_code == 200
            client.auth = ("prometheus", password)
            eventually(lambda: "edgeml_camera_frames_total" in client.get("/metrics").text, what="the report")
            answer = client.get("/metrics")
            assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
            assert value(list(samples(answer.content)), "edgeml_camera_frames_total", camera="front") == 5
