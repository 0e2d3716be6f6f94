"""What `/metrics` tells, sent to an OpenTelemetry collector: OTLP over HTTP in its JSON encoding.

https://opentelemetry.io/docs/specs/otlp/#otlphttp. The SDK would be 4 MB more for a format that is a dozen lines.
"""

import gzip
import re
import threading
import time
from collections.abc import Mapping
from typing import Any

import msgspec

from edgeml import http
from edgeml.component import Context
from edgeml.errors import HttpError, IpcError, SecretError
from edgeml.secrets import secret_fields
from monitor import __version__
from monitor.config import Config, Otlp
from monitor.metrics import METRICS, Metrics
from monitor.state import State

PATH = "/v1/metrics"
MAX_POINTS = 4000
LIMITS = http.Limits(total_s=15.0, connect_s=5.0, stall_s=5.0, max_bytes=64 << 10)
TELL_AFTER = 3  # failures in a row until they are a problem
MAX_HEADERS, MAX_HEADER = 16, 4096
MAX_PAUSE_S = 3600.0  # that a collector may ask for
CUMULATIVE = 2
NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}", re.ASCII)
OURS = ("connection", "content-encoding", "content-length", "content-type", "host", "transfer-encoding")

Values = Mapping[str, Mapping[tuple[str, ...], float]]


def encoded(values: Values, thing: str, at: float) -> tuple[bytes, int]:
    """The message, and for how many values there was no room in it. `at` is Unix time in seconds."""
    left, metrics, out = MAX_POINTS, [], 0
    for name, points in values.items():
        told = METRICS[name]
        kept = list(points.items())[:left]
        left, out = left - len(kept), out + len(points) - len(kept)
        data = [_point(dict(zip(told.labels, labels, strict=True)), value, at) for labels, value in kept]
        if not data:
            continue
        if told.kind == "counter":
            shape: dict[str, Any] = {
                "sum": {"dataPoints": data, "aggregationTemporality": CUMULATIVE, "isMonotonic": True}
            }
        else:
            shape = {"gauge": {"dataPoints": data}}
        metrics.append({"name": name, "description": told.text, **shape})
    resource = {"service.name": "edgeml.Monitor", "service.version": __version__, "service.instance.id": thing}
    scope = {"name": "edgeml.Monitor", "version": __version__}
    message = {
        "resourceMetrics": [
            {"resource": {"attributes": _attributes(resource)}, "scopeMetrics": [{"scope": scope, "metrics": metrics}]}
        ]
    }
    return msgspec.json.encode(message), out


def headers_of(fields: Mapping[str, Any], secret: str) -> dict[str, str]:
    """Headers from a secret. Raises SecretError, without their values."""
    inner = fields.get("headers")
    found = inner if isinstance(inner, dict) else {name: value for name, value in fields.items() if name != "password"}
    if len(found) > MAX_HEADERS:
        raise SecretError(f"secret {secret}: {len(found)} headers, {MAX_HEADERS} are allowed")
    for name, value in found.items():
        if not NAME.fullmatch(name) or name.lower() in OURS:
            raise SecretError(f"secret {secret}: {name[:64]!r} is no header that can be sent")
        if not isinstance(value, str) or not 0 < len(value) <= MAX_HEADER or not all(" " <= c <= "~" for c in value):
            raise SecretError(f"secret {secret}: header {name}: expected text of at most {MAX_HEADER} characters")
    return dict(found)


def _point(labels: Mapping[str, str], value: float, at: float) -> dict[str, Any]:
    return {"attributes": _attributes(labels), "timeUnixNano": str(round(at * 1e9)), "asDouble": float(value)}


def _attributes(values: Mapping[str, str]) -> list[dict[str, Any]]:
    return [{"key": key, "value": {"stringValue": value}} for key, value in values.items()]


class Exporter:
    """Sends until the component stops. What is not taken is lost: the next message says how things are then."""

    def __init__(self, context: Context, state: State) -> None:
        self._context, self._metrics = context, Metrics(state)
        self._changed = threading.Event()
        self._settings = Otlp()
        self._failures = 0

    def start(self, config: Config) -> None:
        self._settings = config.otlp
        self._context.spawn("otlp", self._send_for_ever)

    def reconfigure(self, config: Config) -> None:
        if config.otlp != self._settings:
            self._settings = config.otlp
            self._changed.set()

    def ask_to_stop(self) -> None:
        self._changed.set()

    def _send_for_ever(self) -> None:
        while not self._context.stopping.is_set():
            self._changed.clear()
            settings, self._failures = self._settings, 0
            if settings.endpoint:
                self._send_until_changed(settings)
            else:
                self._changed.wait()
            for code in ("secret_missing", "refused", "unreachable"):
                self._context.health.problems.cleared(code, "otlp")

    def _send_until_changed(self, settings: Otlp) -> None:
        with_headers: dict[str, str] | None = None
        pause = 1.0  # components say at their start how they are
        while not self._changed.wait(pause):
            pause = settings.every_s
            try:
                if with_headers is None:
                    with_headers = self._headers(settings)
                answer = self._sent(settings, with_headers)
            except (IpcError, SecretError) as error:
                self._context.health.problems.found("secret_missing", "otlp", str(error))
                continue
            except HttpError as error:
                self._failed("unreachable", str(error))
                continue
            if answer.status in (401, 403):  # the secret may have been changed
                with_headers = None
            pause = max(pause, asked_pause(answer))
            self._judge(answer)

    def _headers(self, settings: Otlp) -> dict[str, str]:
        """Raises SecretError, IpcError."""
        secret = settings.headers_secret
        found = headers_of(secret_fields(self._context.ipc, secret), secret) if secret else {}
        self._context.health.problems.cleared("secret_missing", "otlp")
        return found

    def _sent(self, settings: Otlp, headers: Mapping[str, str]) -> http.Answer:
        """The collector's answer. Raises HttpError."""
        base = settings.endpoint.rstrip("/")
        url = base if base.endswith(PATH) else base + PATH
        data, out = encoded(self._metrics.values(), self._context.thing_name, time.time())
        if out:
            self._context.health.count("otlp.left_out", out)
        ours = {"Content-Type": "application/json", "Content-Encoding": "gzip", "User-Agent": f"edgeml/{__version__}"}
        return http.request("POST", url, LIMITS, headers={**headers, **ours}, body=gzip.compress(data, 6))

    def _judge(self, answer: http.Answer) -> None:
        if answer.status == 200:
            self._failures = 0
            self._context.health.count("otlp.sent")
            if rejected := _rejected(answer.body):
                self._context.health.count("otlp.rejected", rejected)
            for code in ("refused", "unreachable"):
                self._context.health.problems.cleared(code, "otlp")
        elif answer.status == 429 or answer.status >= 500:
            self._failed("unreachable", f"{http.shown(answer.url)}: HTTP {answer.status}")
        else:
            self._failed("refused", f"{http.shown(answer.url)}: HTTP {answer.status}")

    def _failed(self, code: str, text: str) -> None:
        self._failures += 1
        self._context.health.count("otlp.failed")
        self._context.health.error(f"otlp: {text}")
        if code == "refused" or self._failures >= TELL_AFTER:
            self._context.health.problems.found(code, "otlp", text)


def asked_pause(answer: http.Answer) -> float:
    """Seconds until the collector wants to hear more; 0 where it does not say so."""
    asked = answer.headers.get("Retry-After", "") if answer.status in (429, 503) else ""
    return min(float(asked), MAX_PAUSE_S) if asked.isascii() and asked.isdigit() else 0.0


def _rejected(body: bytes) -> int:
    """Of the values, how many the collector says that it has not taken."""
    try:
        told = msgspec.json.decode(body)["partialSuccess"]["rejectedDataPoints"]
        return max(0, min(int(told), MAX_POINTS))
    except (msgspec.MsgspecError, LookupError, TypeError, ValueError, RecursionError):
        return 0
