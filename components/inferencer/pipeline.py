"""One pipeline: source -> model -> sinks, on a thread of its own, so that a slow one never stalls another."""

import logging
import threading
import time
from collections.abc import Sequence

from edgeml.component import Context
from edgeml.errors import BackendError, EdgemlError
from edgeml.log import kv
from edgeml.messages import InferenceResult, LatencyMs
from inferencer.sample import Model, Outcome, Sample, SampleSource
from inferencer.sinks import Sink

log = logging.getLogger(__name__)

POLL_S = 0.25  # how soon a waiting pipeline notices a new model or its end


class PipelineWorker:
    """Runs a pipeline until `stop`. A sample that fails is counted and logged; the next one is tried."""

    def __init__(self, name: str, source: SampleSource, model: Model, sinks: Sequence[Sink], context: Context) -> None:
        self.name, self._source, self._model, self._sinks = name, source, model, sinks
        self._context, self._prefix = context, f"pipelines.{name}"
        self._stopping = threading.Event()
        self._failures = 0
        self._thread = context.spawn(f"pipeline-{name}", self._run)

    def stop(self) -> None:
        """Finish the sample in hand and end."""
        self._stopping.set()
        self._thread.join(timeout=2)
        self._source.close()
        self._model.close()

    def _run(self) -> None:
        while not self._stopping.is_set():
            if not self._model.poll():
                self._stopping.wait(POLL_S / 10)
                continue
            try:
                sample = self._source.next(POLL_S)
                if sample is not None:
                    self._answer(sample)
                    self._failures = 0
            except EdgemlError as error:
                self._failed(error)

    def _answer(self, sample: Sample) -> None:
        health = self._context.health
        started_ns = time.monotonic_ns()
        outcome = self._model.infer(sample)
        if outcome is None:
            health.count(f"{self._prefix}.overwritten")
            return
        result = self._result(sample, outcome, (started_ns - sample.arrived_ns) / 1e6)
        for sink in self._sinks:
            sink.put(sample, outcome, result)
        health.count(f"{self._prefix}.inferences")
        health.count(f"{self._prefix}.found", 0 if outcome.empty else 1)
        health.observe(f"{self._prefix}.inference", outcome.timer.inference)
        health.observe(f"{self._prefix}.total", (time.monotonic_ns() - sample.arrived_ns) / 1e9)

    def _result(self, sample: Sample, outcome: Outcome, queue_ms: float) -> InferenceResult:
        timer = outcome.timer
        return InferenceResult(
            pipeline=self.name,
            model=outcome.model,
            source=sample.source,
            task=outcome.task,
            results=outcome.results,
            latency_ms=LatencyMs(
                queue=round(queue_ms, 3),
                preprocess=round(timer.preprocess * 1e3, 3),
                inference=round(timer.inference * 1e3, 3),
                postprocess=round(timer.postprocess * 1e3, 3),
            ),
            device=self._context.thing_name,
            backend=outcome.backend,
            request_id=sample.request_id,
        )

    def _failed(self, error: EdgemlError) -> None:
        self._failures += 1
        self._context.health.count(f"{self._prefix}.failed")
        self._context.health.error(f"pipeline {self.name}: {error}")
        if self._failures & (self._failures - 1) == 0:  # 1, 2, 4, 8 ...: a camera fails thirty times a second
            log.error("inference failed %s", kv(pipeline=self.name, error=error, in_a_row=self._failures))
        if not isinstance(error, BackendError):  # the source itself is unusable: do not spin on it
            self._stopping.wait(min(5.0, 0.1 * 2 ** min(self._failures, 6)))
