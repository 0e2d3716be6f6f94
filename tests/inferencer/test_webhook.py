"""Webhooks against real servers that are slow, say no, or cannot be trusted."""

import hashlib
import hmac
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from certificates import certificate
from edgeml import messages
from edgeml.component import Context
from edgeml.outbox import Outbox
from hostile_http import ENDLESS, raw_server
from inferencer.assembly import Assembly
from inferencer.backends.onnx import OnnxBackend
from inferencer.sinks.webhook import SIGNATURE, WebhookSink
from inferencer.sources.topic import TopicSource
from inferencer_support import (
    Answer,
    Endpoint,
    deliver,
    endpoint,
    no_uploads,
    pipeline,
    regressor,
)
from sinks_support import frames, impatient, opened, put, sent
from support import eventually


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    return impatient(tmp_path / "work", monkeypatch)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Endpoint]:
    with endpoint(certificate(tmp_path)) as running:
        yield running


def hook(server: Endpoint, **settings: Any) -> WebhookSink:
    return WebhookSink(url=f"{server.url}/hook?token=s3cret", ca_file=str(server.pem), **settings)


def test_a_webhook_gets_the_result_and_its_signature(context: Context, server: Endpoint) -> None:
    with opened(hook(server, hmac_secret="hook"), context) as sink:
        result = put(sink)
        eventually(lambda: sent(context) == 1, 10, "the result")
    path, headers, body = server.requests[0]
    assert path == "/hook?token=s3cret"
    assert json.loads(body) == json.loads(messages.encode(result))
    assert headers["Content-Type"] == "application/json"
    assert headers[SIGNATURE] == "sha256=" + hmac.new(b"k", body, hashlib.sha256).hexdigest()


@pytest.mark.parametrize("status", [302, 307, 408, 425, 429, 500, 503])
def test_an_outage_is_waited_for(context: Context, server: Endpoint, status: int) -> None:
    server.behave = lambda body: Answer(status if len(server.requests) < 4 else 200, headers={"Location": "/other"})
    with opened(hook(server), context) as sink:
        for frame in range(3):
            put(sink, frame)
        eventually(lambda: sent(context) == 3, 10, "all three")
    assert frames([body for _, _, body in server.requests]) == [0, 0, 0, 0, 1, 2]
    assert {path for path, _, _ in server.requests} == {"/hook?token=s3cret"}


@pytest.mark.parametrize("status", [301, 308, 400, 401, 403, 404, 413, 422])
def test_what_is_refused_lets_others_pass_and_is_kept_with_its_reason(
    context: Context, server: Endpoint, status: int
) -> None:
    with endpoint() as elsewhere:

        def behave(body: bytes) -> Answer:
            is_first = json.loads(body)["source"]["frame_id"] == 100
            return Answer(status if is_first else 204, b"", headers={"Location": elsewhere.url})

        server.behave = behave
        with opened(hook(server, hmac_secret="hook"), context) as sink:
            for frame in range(3):
                put(sink, frame)
            eventually(lambda: sent(context) == 2, 10, "the others")
        assert elsewhere.requests == []
    kept = {path.suffix: path.read_bytes() for path in context.work.glob("*.quarantine/*")}
    assert b'"frame_id":100' in kept[".payload"]
    told = b"".join(kept.values())
    assert f"status {status}".encode() in told
    assert b"s3cret" not in told


@pytest.mark.parametrize("fault", ["silence", "headers trickle", "body trickles", "body floods"])
def test_an_attempt_ends_with_its_deadline(context: Context, tmp_path: Path, fault: str) -> None:
    pem = certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem)
    with raw_server(ENDLESS[fault], tls) as bad:
        with opened(WebhookSink(url=bad.url, ca_file=str(pem), deadline_s=0.1), context) as sink:
            put(sink)
            eventually(lambda: len(bad.requests) > 2, 10, "another attempt")
        assert sent(context) == 0


def test_a_certificate_that_nobody_trusts_is_told(context: Context, server: Endpoint) -> None:
    with opened(WebhookSink(url=server.url), context) as sink:
        put(sink)
        eventually(context.health.problems.current, 10, "the problem")
        (problem,) = context.health.problems.current()
        assert (problem.code, "certificate" in problem.text.lower()) == ("unreachable", True)
    assert server.requests == []


def test_a_pipeline_has_any_number_of_sinks(context: Context, server: Endpoint, tmp_path: Path) -> None:
    sinks = {name: hook(server, hmac_secret="hook") for name in ("home", "office")}
    backend = OnnxBackend(model="Tiny", path=str(regressor(tmp_path / "bundle")))
    settings = pipeline(backend, TopicSource(topic="t"), sinks=sinks)
    outbox = Outbox(context.work / "iot_core.spool", context.ipc, context.health, max_bytes=1 << 20)
    running = Assembly(context, tmp_path, outbox, no_uploads).start("p", settings)
    try:
        deliver(running, "t", b"1,2,3")
        eventually(lambda: len(server.requests) == 2, 10, "the result, twice")
    finally:
        running.worker.stop()
        outbox.close()
    assert {json.loads(body)["results"]["value"] for _, _, body in server.requests} == {6.0}
    spools = {path.name for path in context.work.glob("pipelines.*.spool")}
    assert spools == {"pipelines.p.sinks.home.spool", "pipelines.p.sinks.office.spool"}
