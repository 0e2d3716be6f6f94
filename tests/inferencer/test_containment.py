"""An error at any border of a pipeline: one sample is lost, one pipeline waits a moment, and nothing else."""

import threading
from pathlib import Path
from typing import Any

import pytest

from edgeml.component import Context
from edgeml.messages import InferenceResult, LatencyMs, ModelRef, Regression, SampleRef
from inferencer import pipeline
from inferencer.sample import Outcome, Timer
from inferencer.sinks.iot_core import IotCore, IotCoreSink
from inferencer.writer import MAX_BYTES, Writer
from inferencer_faults_support import ERRORS, Parts
from inferencer_support import make_context, sample
from support import eventually

BORDERS = ("source", "poll", "model", "sink", "second sink", "seen", "reply")


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


def test_pictures_that_wait_for_a_disk_are_bounded_in_bytes(context: Context) -> None:
    """A few hundred crops of full size are more memory than a device has."""
    stalled, kept = threading.Event(), list[int]()

    def stall() -> None:
        stalled.wait(30)

    def fill() -> None:
        for number in range(6):
            writer.put(lambda number=number: kept.append(number), MAX_BYTES // 2)  # type: ignore[misc]
        writer.put(lambda: kept.append(6), 2 * MAX_BYTES)  # one alone may be larger

    writer = Writer("p", context)
    writer.put(stall)
    filling = threading.Thread(target=fill)
    filling.start()
    eventually(lambda: context.health.report().gauges["pipelines.p.store_queue"] == 2, 5, "two that wait")
    filling.join(0.05)
    assert context.health.report().gauges["pipelines.p.store_queue"] == 2
    stalled.set()
    filling.join(10)
    eventually(lambda: kept == list(range(7)), 5, "all of them")
    writer.close()
