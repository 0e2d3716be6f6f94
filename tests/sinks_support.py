"""Sinks in the network as a pipeline opens them, and results for them."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgeml import drainer
from edgeml.backoff import Backoff
from edgeml.component import Context
from edgeml.messages import Anomaly, Classification, InferenceResult, LatencyMs, ModelRef, Regression, SampleRef
from inferencer.backends.onnx import OnnxBackend
from inferencer.parts import Place, Sink
from inferencer.sample import Outcome, Timer
from inferencer.sinks.spooled import SpooledSettings
from inferencer.sources.topic import TopicSource
from inferencer.writer import Writer
from inferencer_support import Recorder, make_context, no_uploads, pipeline, sample

TASKS: dict[str, Any] = {
    "regression": Regression(2.5),
    "anomaly": Anomaly(anomalies=[True], values=[2.0], thresholds=[1.0]),
    "classification": [Classification("a/b+#", 0.9), Classification("c", 0.1)],
}


def impatient(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """A context whose spools try again at once."""
    monkeypatch.setattr(drainer, "Backoff", lambda failures: Backoff(0.01, 0.05, failures=failures))
    return make_context(folder, Recorder(secrets={"hook": '{"hmac_key": "k"}', "broker": "pass-word"}))


@contextmanager
def opened(settings: SpooledSettings, context: Context) -> Iterator[Sink]:
    """The sink `home` of the pipeline `p`, with a writer of its own."""
    writer = Writer("p", context)
    place = Place(
        name="p",
        prefix="pipelines.p.sinks.home",
        pipeline=pipeline(OnnxBackend(model="M"), TopicSource(topic="t")),
        context=context,
        rings=context.work,
        outbox=None,  # type: ignore[arg-type]
        uploader=no_uploads,
        writer=lambda: writer,
    )
    sink = settings.open(place)
    assert sink is not None
    try:
        yield sink
    finally:
        writer.close()
        sink.close()


def put(sink: Sink, frame: int = 0, task: Any = "regression", results: Any = None) -> InferenceResult:
    found = TASKS[task] if results is None else results
    outcome = Outcome(task, ModelRef("m", "1"), found, Timer())
    result = InferenceResult(
        pipeline="p", model=outcome.model, source=SampleRef(frame_id=frame + 100, captured_at=time.time()), task=task,
        results=found, latency_ms=LatencyMs(queue=0, preprocess=0, inference=0, postprocess=0), device="bench",
    )  # fmt: skip
    sink.put(sample([1]), outcome, result)
    return result


def sent(context: Context) -> int:
    return context.health.counter("pipelines.p.sinks.home.sent")


def frames(bodies: list[bytes]) -> list[int]:
    return [json.loads(body)["source"]["frame_id"] - 100 for body in bodies]
