"""Endpoints that fail, hang or are down: what is said of it, and what a pipeline does meanwhile."""

import contextlib
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgeml.component import Context
from edgeml.errors import BackendError
from edgeml.messages import Regression
from edgeml.outbox import Outbox
from hostile_http import ENDLESS, raw_server
from inferencer.assembly import Assembly
from inferencer.backends import remote
from inferencer.backends.http import HttpBackend
from inferencer.backends.onnx import OnnxBackend
from inferencer.backends.remote import MAX_ANSWER_BYTES, Breaker
from inferencer_support import (
    Answer,
    Endpoint,
    Recorder,
    deliver,
    make_context,
    no_uploads,
    picture,
    pipeline,
    regressor,
    sample,
)
from remote_support import NO_ANSWER, SOURCE, http, sagemaker
from support import eventually

WRONG = {
    "429": (Answer(429, b'{"message": "slow down"}', headers={"Retry-After": "60"}), "429|Throttl|slow down"),
    "503": (Answer(503, b"busy"), "503"),
    "slow": (Answer(delay_s=5), "imed? ?out"),
    "text": (Answer(body=b"<html>"), "answer is no"),
    "list": (Answer(body=b"[1, 2"), "answer is no"),
    "shape": (Answer(body=b'{"prediction": [[1, 2]]}'), "answer is no"),
    "deep": (Answer(body=b"[" * 100_000), "answer is no"),
    "empty": (Answer(body=b""), "answer is no"),
    "NaN": (Answer(body=b'{"prediction": [[0, NaN, 0, 0, 1, 1]]}'), "answer is no"),
    "nan": (Answer(body=b"nan"), "answer is no"),
    "infinite": (Answer(body=b"1e999"), "answer is no"),
    "401 digits": (Answer(body=b"1" + b"0" * 400), "answer is no"),
    "5000 digits": (Answer(body=b"9" * 5000), "answer is no"),
    "digits of other scripts": (Answer(body="１２".encode()), "answer is no"),
    "underscores": (Answer(body=b"1_000"), "answer is no"),
    "half a character": (Answer(body=b'{"prediction": [["\\ud800", 1, 0, 0, 1, 1]]}'), "answer is no"),
    "a key twice": (Answer(body=b'{"a": 1, "a": 2}'), "answer is no"),
    "too much": (Answer(body=b" " * (MAX_ANSWER_BYTES + 1)), "bytes"),
    "elsewhere": (Answer(302, headers={"Location": "http://127.0.0.1:9/"}), "302"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_a_failing_endpoint_does_is_said_in_the_error(server: Endpoint, context: Context, kind: str) -> None:
    answer, reason = WRONG[kind]
    server.behave = lambda _: answer
    began = time.monotonic()
    with pytest.raises(BackendError, match=reason):
        sagemaker(context, answer="object_detection").infer(sample(picture()))
    if kind != "shape":  # JSON with one number in it is an answer to a GET
        with pytest.raises(BackendError, match=reason if kind != "429" else "429"):
            http(context, server.url).infer(sample([1, 2]))
    assert time.monotonic() - began < 20  # no answer is waited for again and again


@pytest.mark.parametrize("kind", ["sagemaker", "http"])
@pytest.mark.parametrize("fault", [*ENDLESS, *NO_ANSWER])
def test_no_server_holds_a_pipeline_beyond_its_time(
    server: Endpoint, context: Context, monkeypatch: pytest.MonkeyPatch, kind: str, fault: str
) -> None:
    with raw_server({**ENDLESS, **NO_ANSWER}[fault]) as bad:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER_RUNTIME", bad.url)
        model: Any = sagemaker(context) if kind == "sagemaker" else http(context, f"{bad.url}/?token=secret")
        began = time.monotonic()
        with pytest.raises(BackendError) as caught:
            model.infer(sample(picture()) if kind == "sagemaker" else sample([1]))
        assert time.monotonic() - began < 20  # these servers never end
        assert "secret" not in str(caught.value)
        model.close()


def test_an_endpoint_that_is_down(context: Context, server: Endpoint) -> None:
    server.close()
    with pytest.raises(BackendError, match="connect"):
        sagemaker(context).infer(sample(picture()))
    with pytest.raises(BackendError, match="refused"):
        http(context, server.url).infer(sample([1]))


@pytest.mark.parametrize("kind", ["sagemaker", "http"])
def test_attempts_are_repeated_after_a_pause(server: Endpoint, context: Context, kind: str) -> None:
    answers = [Answer(503), Answer(503), Answer(body=b"7")]
    server.behave = lambda _: answers.pop(0)
    if kind == "sagemaker":
        model: Any = sagemaker(context, "regression", answer="value", content_type="text/csv", attempts=3)
    else:
        model = http(context, server.url, attempts=3)
    outcome = model.infer(sample([1]))
    assert outcome.results == Regression(7)
    assert len(server.requests) == 3


class Clock:
    """Of the circuits: it stands still until it is told otherwise."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        patch.setattr(remote, "time", SimpleNamespace(monotonic=lambda: self.now))


@pytest.mark.parametrize(("failures", "is_open"), [(0, False), (1, False), (2, False), (3, True)])
def test_a_circuit_opens_after_so_many_failures_in_a_row(
    context: Context, monkeypatch: pytest.MonkeyPatch, failures: int, is_open: bool
) -> None:
    Clock(monkeypatch)
    circuit = remote.Circuit(Breaker(failures=3, open_s=10), "p.http", context)
    for _ in range(2):
        circuit.failed(BackendError("500"))
    circuit.succeeded()
    for _ in range(failures):
        circuit.failed(BackendError("500"))
    with pytest.raises(BackendError, match="circuit open for") if is_open else contextlib.nullcontext():
        circuit.check()


@pytest.mark.parametrize(("passed_s", "is_open"), [(0, True), (9.999, True), (10, False), (10.001, False)])
def test_an_open_circuit_lets_one_through_when_its_time_is_over(
    context: Context, monkeypatch: pytest.MonkeyPatch, passed_s: float, is_open: bool
) -> None:
    clock = Clock(monkeypatch)
    circuit = remote.Circuit(Breaker(failures=1, open_s=10), "p.http", context)
    circuit.failed(BackendError("500"))
    clock.now += passed_s
    for stays_open in (is_open, True):  # the second one waits for what the first one hears
        with pytest.raises(BackendError, match="circuit open for") if stays_open else contextlib.nullcontext():
            circuit.check()


def test_the_circuit_opens_says_so_and_closes_again(
    server: Endpoint, context: Context, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    clock = Clock(monkeypatch)
    server.behave = lambda _: Answer(500)
    model = http(context, server.url, breaker=Breaker(failures=3, open_s=10))
    for _ in range(3):
        with pytest.raises(BackendError, match="500"):
            model.infer(sample([1]))
    assert "circuit open" in caplog.text
    assert "circuit open" in context.health.report().notes["p.http"]
    asked = len(server.requests)
    with pytest.raises(BackendError, match="circuit open for"):
        model.infer(sample([1]))
    assert len(server.requests) == asked  # a backend that is down is left alone
    server.behave = lambda _: Answer(body=b"1")
    clock.now += 10
    assert model.infer(sample([1])) is not None
    assert "circuit closed" in caplog.text
    assert "p.http" not in context.health.report().notes


def running(context: Context, tmp_path: Path, settings: Any, fallback: Any = None) -> Any:
    relay = Outbox(context.work / "iot_core.spool", context.ipc, context.health, max_bytes=1 << 20)
    started = Assembly(context, tmp_path, relay, no_uploads).start("p", pipeline(settings, SOURCE, fallback=fallback))
    return started, relay


def test_the_fallback_answers_while_the_backend_fails(
    server: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ipc, clock = Recorder(), Clock(monkeypatch)
    context = make_context(tmp_path / "work", ipc)
    spare = OnnxBackend(model="Tiny", path=str(regressor(tmp_path / "bundle")))
    backend = HttpBackend(url=server.url, task="regression", attempts=1, breaker=Breaker(failures=2, open_s=1))
    server.behave = lambda _: Answer(500)
    started, relay = running(context, tmp_path, backend, spare)
    try:
        eventually(lambda: context.health.counter("pipelines.p.fallback.models_loaded"), 10, "the fallback")
        answers = []
        for number in range(3):
            deliver(started, "t", f"{number},0,0".encode())
            answers.append(eventually(lambda: ipc.on("edgeml/inference/p")[number:], 5, "an answer")[0])  # noqa: B023
        assert [(a["backend"], a["results"]["value"]) for a in answers] == [("onnx", 0), ("onnx", 1), ("onnx", 2)]
        assert len(server.requests) == 2
        server.behave = lambda _: Answer(body=b"99")
        clock.now += 1
        deliver(started, "t", b"1,1,1")
        answer = eventually(lambda: ipc.on("edgeml/inference/p")[3:], 5, "an answer")[0]
        assert (answer["backend"], answer["results"]["value"]) == ("http", 99)
    finally:
        started.worker.stop()
        relay.close()


def test_a_slow_endpoint_builds_no_backlog_and_gets_the_newest(server: Endpoint, tmp_path: Path) -> None:
    ipc = Recorder()
    context = make_context(tmp_path / "work", ipc)
    server.behave = lambda body: Answer(body=b"1", delay_s=0.2)
    started, relay = running(context, tmp_path, HttpBackend(url=server.url, task="regression", max_in_flight=2))
    try:
        began = time.monotonic()
        for number in range(200):
            deliver(started, "t", str(number).encode())
            time.sleep(0.004)
        eventually(lambda: any("features=199.0" in path for path, _, _ in server.requests[-2:]), 5, "the newest")
        asked = [float(path.partition("=")[2]) for path, _, _ in server.requests]
        # Two are on their way at a time, and either may arrive first.
        assert all(later > earlier for earlier, later in zip(asked, asked[2:], strict=False))
        most = 2 * ((time.monotonic() - began) / 0.2 + 1)
        assert len(asked) <= most
        assert context.health.counter("pipelines.p.messages_dropped") >= 200 - most - 1  # one may wait
    finally:
        server.released.set()
        started.worker.stop()
        relay.close()
