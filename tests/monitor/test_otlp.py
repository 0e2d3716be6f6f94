"""OTLP to a stand-in of an OpenTelemetry collector, which holds it against the protocol's JSON; and to others."""

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgeml import http
from edgeml.component import Context
from edgeml.errors import ConfigError, SecretError
from edgeml.health import Health
from hostile_http import ENDLESS, OK, WRONG, raw_server, sends
from ipc_support import FakeIpc
from monitor import otlp as rules
from monitor.config import Config, Otlp
from monitor.metrics import Metrics
from monitor.otlp import MAX_POINTS, Exporter, encoded, headers_of
from monitor.state import State
from monitor_support import QUIET
from support import Standalone, eventually

HEALTH: dict[str, Any] = {
    "component": "edgeml.CameraCapture",
    "version": "1.1.0",
    "at": 1.0,
    "uptime_s": 1.0,
    "counters": {"cameras.door.captured": 7},
    "rates": {},
    "latency_ms": {},
    "gauges": {"messages.dropped": 0},
    "notes": {},
    "last_error": None,
}


class Collector:
    """A stand-in for an OpenTelemetry collector: it says so in its answers, and is one as far as it is asked here."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.status, self.body, self.more = 200, b"{}", dict[str, str]()
        self.url = ""


@contextmanager
def collecting() -> Iterator[Collector]:
    collector = Collector()

    class Handler(BaseHTTPRequestHandler):
        server_version = "stand-in-for-a-collector"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.paths.append(self.path)
            collector.headers.append(dict(self.headers))
            collector.messages.append(json.loads(gzip.decompress(body)))
            self.send_response(collector.status)
            for name, value in collector.more.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(collector.body)))
            self.end_headers()
            self.wfile.write(collector.body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=[0.05])
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def values_of(message: dict[str, Any]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Values by name and labels, of a message that is as opentelemetry-proto's JSON mapping says."""
    (resource,) = message["resourceMetrics"]
    named = {item["key"]: item["value"]["stringValue"] for item in resource["resource"]["attributes"]}
    assert named["service.name"] == "edgeml.Monitor"
    (scope,) = resource["scopeMetrics"]
    found = {}
    for metric in scope["metrics"]:
        (kind,) = metric.keys() - {"name", "description"}
        if kind == "sum":
            assert metric[kind]["aggregationTemporality"] == 2
            assert metric[kind]["isMonotonic"] is True
        assert (kind == "sum") is metric["name"].endswith("_total")
        for point in metric[kind]["dataPoints"]:
            assert point.keys() == {"attributes", "timeUnixNano", "asDouble"}
            assert int(point["timeUnixNano"]) > 1_700_000_000 * 10**9
            labels = tuple((item["key"], item["value"]["stringValue"]) for item in point["attributes"])
            found[metric["name"], labels] = point["asDouble"]
    return found


def state() -> State:
    made = State("press-1", "1.1.0", lambda: ())
    assert made.heard("edgeml/health/CameraCapture", json.dumps(HEALTH).encode())
    return made


def test_names_and_values_are_those_of_the_metrics_page() -> None:
    metrics = Metrics(state())
    told = values_of(json.loads(encoded(metrics.values(), "press-1", 1_800_000_000.0)[0]))
    page = {
        (sample.name, tuple(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }
    assert told == page
    assert told["edgeml_camera_frames_total", (("camera", "door"),)] == 7


def test_a_message_is_bounded_and_says_what_is_left_out() -> None:
    values: dict[str, dict[tuple[str, ...], float]] = {
        "edgeml_component_up": {(f"c{number}",): 1.0 for number in range(MAX_POINTS + 5)}
    }
    data, out = encoded({**values, "edgeml_device_uptime_seconds": {(): 1.0}}, "x", 1_800_000_000.0)
    assert len(values_of(json.loads(data))) == MAX_POINTS
    assert out == 6


def test_the_process_sends_with_the_secrets_headers(tmp_path: Path) -> None:
    with collecting() as collector:
        secrets = {"edgeml-monitor": json.dumps({"password": "of the page", "Authorization": "Bearer of the site"})}
        settings = {"endpoint": collector.url, "headers_secret": "edgeml-monitor", "every_s": 5}
        with Standalone("monitor", {**QUIET, "otlp": settings, "secrets": secrets}, tmp_path) as running:
            eventually(lambda: collector.messages, 30, "a message")
        assert "of the site" not in running.log
    assert set(collector.paths) == {"/v1/metrics"}
    assert collector.headers[0]["Authorization"] == "Bearer of the site"
    assert collector.headers[0]["Content-Type"] == "application/json"
    assert not [value for value in collector.headers[0].values() if "of the page" in value]
    assert values_of(collector.messages[0])


@contextmanager
def exporting(folder: Path, endpoint: str, ipc: FakeIpc | None = None, secret: str = "") -> Iterator[Context]:
    context = Context(ipc or FakeIpc(), Health("edgeml.Monitor", "1"), folder, folder, "press-1")
    exporter = Exporter(context, state())
    exporter.start(Config(otlp=Otlp(endpoint=endpoint, headers_secret=secret, every_s=0.05)))
    try:
        yield context
    finally:
        context.stopping.set()
        exporter.ask_to_stop()


def problems(context: Context) -> set[str]:
    return {problem.code for problem in context.health.problems.current() if problem.subject == "otlp"}


ANSWERS = {400: "refused", 401: "refused", 404: "refused", 413: "refused", 429: "unreachable", 500: "unreachable"}


@pytest.mark.parametrize("status", ANSWERS)
def test_an_answer_that_is_none_is_a_problem_until_it_is_one(tmp_path: Path, status: int) -> None:
    with collecting() as collector, exporting(tmp_path, collector.url) as context:
        collector.status = status
        eventually(lambda: problems(context) == {ANSWERS[status]}, 20, "the problem")
        collector.status = 200
        eventually(lambda: not problems(context), 20, "its end")


def test_what_is_rejected_is_counted(tmp_path: Path) -> None:
    with collecting() as collector:
        collector.body = b'{"partialSuccess": {"rejectedDataPoints": "3", "errorMessage": "x"}}'
        with exporting(tmp_path, collector.url) as context:
            eventually(lambda: context.health.counter("otlp.rejected") >= 3, 20, "the count")


PAUSES = {
    "3600": 3600.0,
    "999999": 3600.0,
    "0": 0.0,
    "-5": 0.0,
    "nan": 0.0,
    "Wed, 21 Oct 2026 07:28:00 GMT": 0.0,
    "²": 0.0,
}


@pytest.mark.parametrize("asked", PAUSES)
@pytest.mark.parametrize(("status", "heard"), [(429, True), (503, True), (200, False)])
def test_a_collector_that_asks_for_a_pause_gets_one(status: int, heard: bool, asked: str) -> None:
    headers = HTTPMessage()
    headers["Retry-After"] = asked
    answer = http.Answer(status, "", headers, b"", "http://collector")
    assert rules.asked_pause(answer) == (PAUSES[asked] if heard else 0.0)


def test_no_redirect_is_followed(tmp_path: Path) -> None:
    with collecting() as other, collecting() as collector:
        collector.status, collector.more = 307, {"Location": f"{other.url}/v1/metrics"}
        with exporting(tmp_path, collector.url) as context:
            eventually(lambda: problems(context), 20, "the problem")
        assert other.messages == []


HOSTILE = {**WRONG, **{name: ENDLESS[name] for name in ("silence", "headers trickle", "body floods")}}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_collector_that_misbehaves_costs_no_more_than_its_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.setattr(rules, "LIMITS", http.Limits(total_s=0.3, connect_s=0.3, stall_s=0.3, max_bytes=1000))
    monkeypatch.setattr(rules, "TELL_AFTER", 1)
    with raw_server(HOSTILE[case]) as server, exporting(tmp_path, server.url) as context:
        eventually(lambda: problems(context) == {"unreachable"}, 20, "the problem")
        server.behave = sends(OK + b"Content-Length: 2\r\n\r\n{}")
        eventually(lambda: not problems(context), 20, "its end")


SECRETS: dict[str, Any] = {
    "no name": {"": "x"},
    "two lines": {"X": "a\r\nHost: evil"},
    "a name of two lines": {"X\r\nHost": "evil"},
    "a number": {"X": 5},
    "empty": {"X": ""},
    "long": {"X": "x" * 5000},
    "not its own": {"Host": "evil"},
    "many": {f"X{number}": "x" for number in range(20)},
    "no ASCII": {"X": "é"},
}


@pytest.mark.parametrize("case", SECRETS)
def test_headers_that_cannot_be_sent_are_refused_without_their_text(case: str) -> None:
    with pytest.raises(SecretError, match="secret s") as refused:
        headers_of(SECRETS[case], "s")
    assert "evil" not in str(refused.value)


@pytest.mark.parametrize("text", ["plain", "[]", '{"X": 5}'])
def test_a_secret_that_holds_no_headers_is_a_problem(tmp_path: Path, text: str) -> None:
    with collecting() as collector, exporting(tmp_path, collector.url, FakeIpc(secret=text), "s") as context:
        eventually(lambda: problems(context) == {"secret_missing"}, 20, "the problem")
        assert collector.messages == []


def test_one_secret_may_hold_password_and_headers() -> None:
    assert headers_of({"password": "p", "headers": {"X": "y"}}, "s") == {"X": "y"}
    assert headers_of({"password": "p", "X": "y"}, "s") == {"X": "y"}


NEVER: dict[str, dict[str, Any]] = {
    "otlp.endpoint: .* alone": {"endpoint": "https://user:password@collector"},
    "otlp.endpoint: expected .* alone": {"endpoint": "https://collector/?key=password"},
    "otlp.endpoint: expected https": {"endpoint": "http://collector", "headers_secret": "s"},
    "otlp.endpoint": {"endpoint": "https://:99999"},
}


@pytest.mark.parametrize("words", NEVER)
def test_what_can_never_be_sent_is_refused(words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        Config(otlp=Otlp(**NEVER[words])).check()
    assert "password" not in str(refused.value)
    Config(otlp=Otlp(endpoint="http://127.0.0.1:4318", headers_secret="s")).check()
