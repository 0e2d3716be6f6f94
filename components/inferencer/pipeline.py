"""One pipeline: source -> model -> sinks, on threads of its own, so that a slow one never stalls another."""

import logging
import threading
import time
from collections.abc import Sequence

import msgspec

from edgeml.backoff import Backoff
from edgeml.component import Context
from edgeml.errors import BackendError, EdgemlError
from edgeml.log import kv
from edgeml.messages import InferenceResult, LatencyMs, ModelRef, Regression
from edgeml.pace import Throttle
from inferencer.parts import Model, Part, SampleSource, Sink
from inferencer.sample import MAX_REASON, Outcome, Sample, Timer, compared
from inferencer.writer import Writer

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S, SHORTEST_PAUSE_S = 0.4, 5.0, 0.1  # after errors that are not one input's
POLL_S = 0.25  # how soon a waiting pipeline notices a new model or its end


class PipelineWorker:
    """Runs a pipeline until `stop`. A sample that fails is counted and logged; the next one is tried.

    `in_flight` threads ask the model; each takes the source's newest sample when it is free, so that a slow model
    in the network never builds a backlog. `writers` work for the sinks, and end before them.
    """

    def __init__(
        self,
        name: str,
        source: SampleSource,
        model: Model,
        sinks: Sequence[Sink],
        context: Context,
        *,
        in_flight: int = 1,
        writers: Sequence[Writer] = (),
    ) -> None:
        self.name, self._source, self._model, self._sinks = name, source, model, sinks
        self._watching = [sink for sink in sinks if type(sink).seen is not Sink.seen]
        self._writers = writers
        self._context, self._health = context, context.health.scope(f"pipelines.{name}")
        self._stopping = threading.Event()
        self._taking = threading.Lock()  # one thread at a time asks the source
        self._failures, self._unwell = Throttle(), False
        self._pauses = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S, SHORTEST_PAUSE_S)
        self._not_sent: dict[str, Throttle] = {}  # by sink
        self._threads = [context.spawn(f"pipeline-{name}", self._run) for _ in range(in_flight)]

    def ask_to_stop(self) -> None:
        """Take no more samples. `stop` must follow."""
        self._stopping.set()

    def stop(self, timeout: float = 2.0) -> None:
        """Finish the samples in hand, as far as that takes no longer than `timeout` seconds, and end."""
        self.ask_to_stop()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(timeout=max(0.0, deadline - time.monotonic()))
        ending: list[Part | Writer] = [self._source, self._model, *self._writers, *self._sinks]
        for part in ending:
            try:
                part.close()
            except Exception as error:  # the other parts are to be closed as well
                log.exception("not closed %s", kv(pipeline=self.name, part=type(part).__name__, error=error))

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                samples = self._next()
                if samples:
                    self._answer(samples)
                    self._well()
            except Exception as error:  # noqa: BLE001  (what one input brings out must not end any pipeline)
                self._failed(error)

    def _next(self) -> list[Sample]:
        with self._taking:
            if self._stopping.is_set():
                return []
            if not self._model.poll():
                self._stopping.wait(POLL_S / 10)
                return []
            sample = self._source.next(POLL_S)
            if sample is None:
                return []
            more = self._model.together - 1
            return [sample, *self._source.more(more)] if more else [sample]

    def _answer(self, samples: list[Sample]) -> None:
        started_ns = time.monotonic_ns()
        for sample in samples:
            for sink in self._watching:
                try:
                    sink.seen(sample)
                except Exception as error:  # noqa: BLE001  (the answer is no worse for it)
                    self._lost(type(sink).__name__, error)
        if len(samples) == 1:
            self._answered(samples[0], self._outcome(samples[0]), started_ns)
            return
        for sample, outcome in self._outcomes(samples):
            self._answered(sample, outcome, started_ns)

    def _outcome(self, sample: Sample) -> Outcome | None:
        try:
            return self._model.infer(sample)
        except Exception as error:
            self._refuse(sample, str(error) or repr(error))
            raise

    def _outcomes(self, samples: list[Sample]) -> list[tuple[Sample, Outcome | None]]:
        """All at once; where that fails, one by one, so that a bad one costs itself alone: it is not among them."""
        try:
            return list(zip(samples, self._model.infer_all(samples), strict=True))
        except Exception as error:  # noqa: BLE001  (told of the one that it is)
            log.debug("not answered together %s", kv(pipeline=self.name, error=error))
        found: list[tuple[Sample, Outcome | None]] = []
        for sample in samples:
            try:
                found.append((sample, self._outcome(sample)))
            except Exception as error:  # noqa: BLE001  (as in _run)
                self._failed(error)
        return found

    def _answered(self, sample: Sample, outcome: Outcome | None, started_ns: int) -> None:
        if outcome is None:
            self._health.count("without_answer")
            self._refuse(sample, "the model has no answer to this one yet")
            return
        if sample.hidden is not None:  # of the picture that it was cut out of
            outcome.hidden = sample.hidden
        result = self._result(sample, outcome, (started_ns - sample.arrived_ns) / 1e6)
        for sink in self._sinks:
            try:
                sink.put(sample, outcome, result)
            except Exception as error:  # noqa: BLE001  (the other sinks are no worse for it)
                self._lost(type(sink).__name__, error)
        self._health.count("inferences")
        self._health.count("found", 0 if outcome.empty else 1)
        self._health.observe("inference", outcome.timer.inference)
        self._health.observe("total", (time.monotonic_ns() - sample.arrived_ns) / 1e9)

    def _result(self, sample: Sample, outcome: Outcome, queue_ms: float) -> InferenceResult:
        timer = outcome.timer
        if isinstance(outcome.results, Regression) and sample.measured is not None:
            outcome.results = compared(outcome.results, sample.measured)
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
            hidden=outcome.hidden,
        )

    def _refuse(self, sample: Sample, reason: str) -> None:
        """Answer a request with an error; samples of other kinds expect no answer."""
        if sample.reply is None:
            return
        try:
            nothing = Outcome("classification", ModelRef("", ""), [], Timer())
            sample.reply(msgspec.structs.replace(self._result(sample, nothing, 0.0), error=reason[:MAX_REASON]))
        except Exception as error:  # noqa: BLE001  (the reason counts, and is told by whoever refuses)
            self._lost("reply", error)

    def _lost(self, sink: str, error: Exception) -> None:
        """A result did not get where `sink` sends it: told now and then, counted each time."""
        self._health.count("not_sent")
        self._health.error(f"pipeline {self.name}: {error}")
        throttle = self._not_sent.setdefault(sink, Throttle())
        if throttle.due():
            facts = kv(pipeline=self.name, sink=sink, error=error, count=throttle.count)
            log.error("result not sent %s", facts, exc_info=_unexpected(error) if throttle.count == 1 else None)

    def _well(self) -> None:
        self._failures.reset()
        self._pauses.reset()
        if self._unwell:
            self._unwell = False
            self._health.cleared("worker_failed")

    def _failed(self, error: Exception) -> None:
        self._health.count("failed")
        self._health.error(f"pipeline {self.name}: {error}")
        unexpected = _unexpected(error)
        if self._failures.due():  # a camera fails thirty times a second
            facts = kv(pipeline=self.name, error=error, in_a_row=self._failures.count)
            log.error("inference failed %s", facts, exc_info=unexpected if self._failures.count == 1 else None)
        if unexpected is not None:
            self._unwell = True
            self._health.found("worker_failed", repr(error))
        if not isinstance(error, BackendError):  # the source itself is unusable: do not spin on it
            self._stopping.wait(self._pauses.next())


def _unexpected(error: Exception) -> Exception | None:
    """`error` if it is none of ours: its traceback is worth a log."""
    return None if isinstance(error, EdgemlError) else error
