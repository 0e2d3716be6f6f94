"""Whatever a library raises, wherever: one sample is lost, one pipeline waits a moment, and nothing else."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import onnxruntime
import paho.mqtt.client as mqtt
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from edgeml import http
from edgeml.component import Context
from edgeml.errors import BackendError
from edgeml.messages import InferenceResult, LatencyMs, ModelRef, Regression, SampleRef
from inferencer import component, pipeline
from inferencer.backends import onnx as onnx_backend
from inferencer.backends.http import HttpBackend
from inferencer.backends.onnx import OnnxBackend
from inferencer.component import Inferencer
from inferencer.config import Config
from inferencer.fallback import WithFallback
from inferencer.parts import Model, SampleSource
from inferencer.pipeline import PipelineWorker
from inferencer.sample import Outcome, Sample, Timer
from inferencer.sinks.iot_core import IotCore, IotCoreSink
from inferencer.sources import mqtt as mqtt_source
from inferencer.sources.caller import CallerSource
from inferencer.sources.camera import CameraSource
from inferencer.sources.mqtt import MqttSamples, MqttSource
from inferencer.sources.topic import TopicSamples, TopicSource
from inferencer.tasks import runner_of, softmax
from inferencer.writer import Writer
from inferencer_support import classifier, endpoint, make_context, picture, regressor, sample
from inferencer_support import pipeline as pipeline_of
from ipc_support import FakeIpc
from support import eventually

ERRORS: dict[str, Callable[[], BaseException]] = {
    "ValueError": lambda: ValueError("x"),
    "TypeError": lambda: TypeError("x"),
    "OverflowError": lambda: OverflowError("int too large to convert to float"),
    "RecursionError": lambda: RecursionError("maximum recursion depth exceeded"),
    "UnicodeEncodeError": lambda: UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates not allowed"),
    "MemoryError": MemoryError,
    "KeyError": lambda: KeyError("x"),
    "AttributeError": lambda: AttributeError("x"),
    "StopIteration": StopIteration,
    "AssertionError": AssertionError,
    "OSError": lambda: OSError(28, "No space left on device"),
    "cv2.error": lambda: cv2.error("x"),
    "onnxruntime": lambda: ort_errors.Fail("x"),
    "onnxruntime, invalid": lambda: ort_errors.InvalidArgument("x"),
    "paho": lambda: mqtt.WebsocketConnectionError("x"),
    "msgspec": lambda: msgspec.ValidationError("x"),
}
BORDERS = ("source", "poll", "model", "sink", "second sink", "seen", "reply")


class Parts(SampleSource, Model):
    """Source, model and sinks of a pipeline; the one called `fault` raises `error` while there is one."""

    def __init__(self, fault: str, error: Callable[[], BaseException]) -> None:
        self.fault, self.error = fault, error
        self.results: list[str] = []
        self.closed: list[str] = []

    def cross(self, border: str) -> None:
        if border == self.fault:
            raise self.error()

    def next(self, timeout: float) -> Sample | None:
        self.cross("source")
        time.sleep(0.002)
        return Sample([1.0], SampleRef(), time.monotonic_ns(), reply=self.replied)

    def replied(self, result: Any) -> None:
        self.cross("reply")

    def poll(self) -> bool:
        self.cross("poll")
        return True

    def infer(self, sample: Sample) -> Outcome | None:
        self.cross("model")
        if self.fault == "reply":
            raise BackendError("to be answered")
        return Outcome("regression", ModelRef("m", "1"), Regression(1.0), Timer())

    def close(self) -> None:
        self.closed.append("part")
        raise self.error()

    def sink(self, name: str) -> Any:
        parts = self

        class Given:
            def seen(self, sample: Sample) -> None:
                if name == "sink":
                    parts.cross("seen")

            def put(self, *given: Any) -> None:
                parts.cross(name)
                parts.results.append(name)

            close = parts.close

        return Given()

    def worker(self, name: str, context: Context) -> PipelineWorker:
        sinks = [self.sink("sink"), self.sink("second sink"), self.sink("third sink")]
        return PipelineWorker(name, self, self, sinks, context)


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.setattr(pipeline, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(pipeline, "LONGEST_PAUSE_S", 0.01)
    monkeypatch.setattr(pipeline, "SHORTEST_PAUSE_S", 0.001)
    return make_context(tmp_path / "work")


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("border", BORDERS)
def test_an_error_at_any_border_ends_no_pipeline(
    context: Context, caplog: pytest.LogCaptureFixture, border: str, kind: str
) -> None:
    bad, good = Parts(border, ERRORS[kind]), Parts("", ValueError)
    workers = [bad.worker("bad", context), good.worker("good", context)]
    counter = "pipelines.bad.not_sent" if border in ("sink", "second sink", "seen", "reply") else "pipelines.bad.failed"
    eventually(lambda: context.health.counter(counter) > 4, 5, "failures")
    eventually(lambda: good.results.count("third sink") > 4, 5, "results of the other pipeline")
    tracebacks = [record for record in caplog.records if record.exc_info]
    assert len(tracebacks) == 1  # with its traceback once
    if "sink" in border or border == "seen":
        assert bad.results.count("third sink") > 2  # the other sinks are no worse for it
    problems = [problem.subject for problem in context.health.problems.current()]
    assert problems == (["pipelines.bad"] if border in ("source", "poll", "model") else [])
    bad.fault = ""
    eventually(lambda: bad.results.count("second sink") > 4 and "sink" in bad.results, 5, "results after the fault")
    eventually(lambda: not context.health.problems.current(), 5, "the problem's end")
    for worker in workers:
        worker.stop()
    assert len(bad.closed) == 5  # source, model and three sinks, each in spite of the others


@pytest.mark.parametrize("kind", ERRORS)
def test_a_result_that_cannot_be_stored_costs_no_other(
    context: Context, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    class Disk:
        kept = 0

        def put(self, *given: Any, **options: Any) -> None:
            if self.kept < 3:
                self.kept += 1
                raise ERRORS[kind]()
            self.kept += 1

    disk: Any = Disk()
    writer = Writer("p", context)
    stored = IotCoreSink(IotCore(), disk, writer)
    result = InferenceResult(
        pipeline="p", model=ModelRef("m", "1"), source=SampleRef(), task="regression", results=Regression(1.0),
        latency_ms=LatencyMs(queue=0, preprocess=0, inference=0, postprocess=0), device="d",
    )  # fmt: skip
    for _ in range(5):
        stored.put(sample([1]), Outcome("regression", ModelRef("m", "1"), Regression(1.0), Timer()), result)
    eventually(lambda: disk.kept == 5, 5, "the others")
    writer.close()
    assert context.health.counter("pipelines.p.not_stored") == 3
    assert caplog.text.count("result not stored") == 2  # the first and the second; the third is counted


# --- each library where it is called ---


def opened(folder: Path) -> Any:
    from edgeml import models

    bundle = models.load(folder)
    backend = OnnxBackend(model="Tiny")
    settings = pipeline_of(backend, CameraSource(camera="c"))
    return runner_of(bundle, models.open_session(bundle, threads=1), settings)


@pytest.mark.parametrize("kind", ERRORS)
def test_what_onnxruntime_opencv_and_decoders_raise_is_a_backend_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    runner = opened(classifier(tmp_path / "b"))

    def fail(*arguments: Any, **options: Any) -> Any:
        raise ERRORS[kind]()

    for owner, name in ((onnxruntime.InferenceSession, "run"), (cv2, "resize"), (softmax, "check")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail)
            with pytest.raises(BackendError):
                runner.infer(sample(picture()))
    assert runner.infer(sample(picture())) is not None


@pytest.mark.parametrize("kind", ERRORS)
def test_the_fallback_answers_whatever_the_first_raises(tmp_path: Path, context: Context, kind: str) -> None:
    good = Parts("", ValueError)
    first = Parts("model", ERRORS[kind])
    model = WithFallback("p", first, good)
    assert model.infer(sample([1])) is not None
    with contextlib.suppress(Exception):
        model.close()
    assert first.closed == good.closed == ["part"]


@pytest.mark.parametrize("kind", ERRORS)
def test_a_remote_models_libraries_fail_in_words(
    tmp_path: Path, context: Context, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    from inferencer.backends.http import HttpModel

    with endpoint() as server:
        backend = HttpBackend(url=server.url, task="regression", attempts=1)
        model = HttpModel(backend, pipeline_of(backend, TopicSource(topic="t")), context, "p")

        def fail(*arguments: Any, **options: Any) -> Any:
            raise ERRORS[kind]()

        for owner, name in ((model, "encode"), (http.Client, "request"), (model, "decode")):
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, fail)
                with pytest.raises(BackendError):
                    model.infer(sample([1]))
        model.close()


def test_a_loader_that_trips_over_a_bundle_goes_on(
    tmp_path: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever onnxruntime raises while a version is opened: the one that runs goes on, the next one is taken."""
    monkeypatch.setattr(onnx_backend, "POLL_S", 0.02)
    settings = OnnxBackend(model="Tiny", path=str(tmp_path / "b"))
    model = onnx_backend.OnnxModel(settings, pipeline_of(settings, CameraSource(camera="c")), context, "p")
    try:
        with monkeypatch.context() as patch:
            for number, error in enumerate(ERRORS.values()):

                def fail(*arguments: Any, error: Callable[[], BaseException] = error, **options: Any) -> Any:
                    raise error()

                patch.setattr(onnxruntime, "InferenceSession", fail)
                classifier(tmp_path / "b", f"1.0.{number}")
                eventually(lambda: context.health.counter("p.models_refused") > number, 5, "a refusal")  # noqa: B023
        classifier(tmp_path / "b", "2.0.0")
        eventually(model.poll, 5, "the model")
    finally:
        model.close()


# --- a broker that paho does not understand ---


def broker(*packets: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """Each connection gets the next packet after its CONNACK and SUBACK."""
    import socket

    listener, seen, ended = socket.create_server(("127.0.0.1", 0)), list[bytes](), threading.Event()
    listener.settimeout(0.05)

    def serve() -> None:
        waiting = list(packets)
        while not ended.is_set():
            try:
                sock, _ = listener.accept()
            except TimeoutError:
                continue
            with sock:
                sock.settimeout(5)
                seen.append(sock.recv(1000))
                sock.sendall(b"\x20\x02\x00\x00")
                sock.recv(1000)
                sock.sendall(b"\x90\x03\x00\x01\x00" + (waiting.pop(0) if waiting else b""))
                if waiting:
                    continue  # and hang up
                ended.wait(10)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1], seen
    finally:
        ended.set()
        thread.join()
        listener.close()


def was(found: Sample | None, data: list[str]) -> bool:
    return found is not None and found.data == data


GOOD = b"\x30\x08\x00\x01t1,2,3"
ODD_PACKETS = {
    "a topic that is no text": b"\x30\x08\x00\x01\xff1,2,3" + GOOD,
    "a topic beyond its packet": b"\x30\x03\x00\xff1",
    "an empty publish": b"\x30\x00",
    "a publish without a topic": b"\x30\x02\x00\x00",
    "a length without end": b"\x30\xff\xff\xff\xff\xff",
    "no such packet": b"\xf0\x02\x00\x00",
    "an acknowledgement of nothing": b"\x40\x01\x00",
    "a short connack": b"\x20\x01\x00",
    "a short suback": b"\x90\x01\x00",
}


@pytest.mark.parametrize("fault", ODD_PACKETS)
def test_a_packet_that_paho_trips_over_costs_a_connection_and_no_more(
    context: Context, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(mqtt_source, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(mqtt_source, "RECONNECT_MIN_S", 0.01)
    for port, _ in broker(ODD_PACKETS[fault], GOOD):
        source = MqttSamples(MqttSource(port=port, topic="t"), 10, context, "p")
        try:
            eventually(lambda: was(source.next(0.1), ["1", "2", "3"]), 10, "a message after the fault")  # noqa: B023
            if fault == "a topic that is no text":  # which costs nothing at all
                assert context.health.counter("p.broker_failed") == 0
        finally:
            source.close()


def test_an_error_within_paho_is_told_and_it_is_connected_anew(
    context: Context, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mqtt_source, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(mqtt_source, "RECONNECT_MIN_S", 0.01)
    raised: list[bool] = []
    original = mqtt.MQTTMessage

    def message(*given: Any, **options: Any) -> mqtt.MQTTMessage:
        if not raised:
            raised.append(True)
            raise OverflowError("of paho")
        return original(*given, **options)

    monkeypatch.setattr(mqtt, "MQTTMessage", message)
    for port, seen in broker(GOOD, GOOD):
        source = MqttSamples(MqttSource(port=port, topic="t"), 10, context, "p")
        try:
            eventually(lambda: was(source.next(0.1), ["1", "2", "3"]), 10, "a message after the fault")  # noqa: B023
            assert len(seen) == 2
            assert context.health.counter("p.broker_failed") == 1
            assert "OverflowError: of paho" in caplog.text
        finally:
            source.close()


# --- pipelines that cannot start ---


def configured(**pipelines: Any) -> Config:
    return Config(pipelines=pipelines)


def answers(core: FakeIpc, context: Context, name: str) -> None:
    """The pipeline of that name infers from a message on its topic `t`."""

    def inferred() -> bool:
        core.handlers["t"]("t", b"[1, 2, 3]")
        return context.health.counter(f"pipelines.{name}.inferences") > 0

    eventually(inferred, 10, f"an inference of {name}")


def test_a_pipeline_that_cannot_start_is_tried_again_and_hinders_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(component, "AGAIN_S", 0.02)
    monkeypatch.setattr(component, "LONGEST_AGAIN_S", 0.02)
    core = FakeIpc()
    context = make_context(tmp_path / "work", core)
    rows = tmp_path / "rows.csv"
    backend = OnnxBackend(model="Tiny", path=str(regressor(tmp_path / "b")))
    missing = pipeline_of(backend, CallerSource(file=str(rows), rate_hz=100))
    made = Inferencer(context)
    made.start(configured(bad=missing, good=pipeline_of(backend, TopicSource(topic="t"))))
    try:
        answers(core, context, "good")
        (problem,) = context.health.problems.current()
        assert (problem.code, problem.subject) == ("source_failed", "pipelines.bad")
        rows.write_text("a,b,c\n1,2,3\n")
        eventually(lambda: context.health.counter("pipelines.bad.inferences"), 10, "the pipeline")
        eventually(lambda: not context.health.problems.current(), 10, "the end of the problem")
        assert caplog.text.count("pipeline not started") == 1
    finally:
        context.stopping.set()
        made.stop()


@pytest.mark.parametrize("kind", ["TypeError", "MemoryError", "cv2.error"])
def test_an_unexpected_error_at_the_start_of_a_pipeline_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    original, core = TopicSource.open, FakeIpc()
    context = make_context(tmp_path / "work", core)

    def open(settings: Any, place: Any) -> Any:
        if place.name == "bad":
            raise ERRORS[kind]()
        return original(settings, place)

    monkeypatch.setattr(TopicSource, "open", open)
    backend = OnnxBackend(model="Tiny", path=str(regressor(tmp_path / "b")))
    one = pipeline_of(backend, TopicSource(topic="t"))
    made = Inferencer(context)
    made.start(configured(bad=one, good=one))
    try:
        answers(core, context, "good")
        assert [problem.code for problem in context.health.problems.current()] == ["worker_failed"]
        assert caplog.text.count("Traceback") == 1
    finally:
        context.stopping.set()
        made.stop()


class Tripping(TopicSamples):
    """Trips over each message."""

    def received(self, topic: str, payload: bytes) -> None:
        raise KeyError(topic)


def test_a_handler_that_fails_keeps_a_message_from_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original, core = TopicSource.open, FakeIpc()
    context = make_context(tmp_path / "work", core)

    def open(settings: Any, place: Any) -> Any:
        return Tripping(settings, 1, context, place.prefix) if place.name == "bad" else original(settings, place)

    monkeypatch.setattr(TopicSource, "open", open)
    one = pipeline_of(OnnxBackend(model="Tiny", path=str(regressor(tmp_path / "b"))), TopicSource(topic="t"))
    made = Inferencer(context)
    made.start(configured(bad=one, good=one))
    try:
        answers(core, context, "good")
        assert context.health.counter("messages_failed") > 0
    finally:
        context.stopping.set()
        made.stop()


def test_an_image_that_is_none_is_one_inputs_fault(tmp_path: Path) -> None:
    runner = opened(classifier(tmp_path / "b"))
    for image in (np.zeros((0, 0, 3), np.uint8), np.zeros((4, 4, 7), np.uint8), np.zeros((4, 4, 3), np.float64)):
        with pytest.raises(BackendError):
            runner.infer(sample(image))
