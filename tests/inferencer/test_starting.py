"""Pipelines that cannot start, or trip over each message, hinder no other."""

from pathlib import Path
from typing import Any

import pytest

from edgeml.component import Context
from inferencer import component
from inferencer.backends.onnx import OnnxBackend
from inferencer.component import Inferencer
from inferencer.config import Config
from inferencer.sources.caller import CallerSource
from inferencer.sources.topic import TopicSamples, TopicSource
from inferencer_faults_support import ERRORS
from inferencer_support import make_context, regressor
from inferencer_support import pipeline as pipeline_of
from ipc_support import FakeIpc
from support import eventually


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
        rows.with_suffix(".new").write_text("a,b,c\n1,2,3\n")
        rows.with_suffix(".new").rename(rows)  # whole from its first moment
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
