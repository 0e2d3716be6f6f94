"""Models in the network: what they share. A circuit breaker each, timing, limits."""

from __future__ import annotations

import logging
import threading
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

import msgspec
from msgspec import Meta

from edgeml.errors import BackendError
from edgeml.log import kv
from edgeml.messages import Classification, ModelRef
from inferencer.parts import BackendSettings, Model, lowest
from inferencer.sample import Outcome, Sample, Timer, foreign

if TYPE_CHECKING:
    from edgeml.component import Context
    from edgeml.http import Limits
    from inferencer.parts import Pipeline

log = logging.getLogger(__name__)

DEFAULT_THRESHOLD: Final = 0.3
MAX_ANSWER_BYTES: Final = 8 * 2**20
MAX_NAME: Final = 200  # characters of a model's name and version, as a server gives them


class Breaker(msgspec.Struct, frozen=True):
    failures: Annotated[int, Meta(ge=1, le=1000, description="Failures in a row that open the circuit")] = 5
    open_s: Annotated[float, Meta(gt=0, le=3600, description="Seconds until the next attempt")] = 15.0


class Remote(BackendSettings, frozen=True, kw_only=True):
    """What backends in the network share."""

    remote: ClassVar[bool] = True

    task: Annotated[Literal["classification", "detection", "regression"], Meta(description="What is answered")]
    labels: Annotated[tuple[str, ...], Meta(description="Names of the classes, in order")] = ()
    connect_timeout_s: Annotated[float, Meta(gt=0, le=60, description="Limit for connecting")] = 3.0
    read_timeout_s: Annotated[float, Meta(gt=0, le=70, description="Limit for an answer")] = 10.0
    attempts: Annotated[int, Meta(ge=1, le=10, description="Attempts per input, with backoff and jitter between")] = 3
    max_in_flight: Annotated[
        int, Meta(ge=1, le=16, description="Inputs asked at the same time; meanwhile newer ones replace waiting ones")
    ] = 1
    breaker: Annotated[Breaker, Meta(description="Stops asking a backend that is down")] = Breaker()

    @property
    def in_flight(self) -> int:
        return self.max_in_flight

    @property
    def limits(self) -> Limits:
        """What one attempt may cost: whatever the server does, it is over after both time-outs."""
        from edgeml.http import Limits

        return Limits(
            total_s=self.connect_timeout_s + self.read_timeout_s,
            connect_s=self.connect_timeout_s,
            answer_s=self.read_timeout_s,
            max_bytes=MAX_ANSWER_BYTES,
        )


class Circuit:
    """Opens after failures in a row, lets one attempt through when its time is over, closes on success."""

    def __init__(self, settings: Breaker, name: str, context: Context) -> None:
        self._settings, self._name, self._health = settings, name, context.health.scope(name)
        self._lock = threading.Lock()
        self._failures = 0
        self._opens_at = 0.0

    def check(self) -> None:
        """Raises BackendError while the circuit is open."""
        with self._lock:
            wait = self._opens_at - time.monotonic()
            if wait > 0:
                raise BackendError(f"{self._name}: circuit open for {wait:.1f} s more after {self._failures} failures")
            if self._failures >= self._settings.failures:  # half open: this caller tries, the others wait for it
                self._opens_at = time.monotonic() + self._settings.open_s

    def succeeded(self) -> None:
        with self._lock:
            if self._failures >= self._settings.failures:
                log.info("circuit closed %s", kv(backend=self._name))
                self._health.note("")
            self._failures, self._opens_at = 0, 0.0

    def failed(self, error: BackendError) -> None:
        with self._lock:
            self._failures += 1
            if self._failures >= self._settings.failures:
                self._opens_at = time.monotonic() + self._settings.open_s
                log.warning("circuit open %s", kv(backend=self._name, for_s=self._settings.open_s, error=error))
                self._health.note(f"circuit open: {error}")
                self._health.count("circuit_opened")


class RemoteModel(Model):
    """What remote models share: breaker, timing, decoding. Subclasses `encode` a sample and `ask`."""

    name: str

    def __init__(self, settings: Remote, pipeline: Pipeline, context: Context, prefix: str) -> None:
        self._settings, self._context = settings, context
        self._threshold = pipeline.score_threshold or DEFAULT_THRESHOLD
        self._lowest = lowest(pipeline, self._threshold)  # of detections
        self._top_k = pipeline.top_k
        self._circuit = Circuit(settings.breaker, f"{prefix}.{self.name}", context)

    def poll(self) -> bool:
        return True

    def infer(self, sample: Sample) -> Outcome | None:
        self._circuit.check()
        timer = Timer()
        with foreign(f"{self.name}: this input cannot be sent"):
            body = self.encode(sample)
        if not sample.valid():
            return None
        timer.lap("preprocess")
        try:
            with foreign(self.name):
                answer, model = self.ask(body)
                timer.lap("inference")
                results = self.decode(answer, sample)
        except BackendError as error:
            self._circuit.failed(error)
            raise
        self._circuit.succeeded()
        timer.lap("postprocess")
        return Outcome(self._settings.task, model, results, timer, self.name, self._threshold)

    @abstractmethod
    def encode(self, sample: Sample) -> bytes: ...

    @abstractmethod
    def ask(self, body: bytes) -> tuple[bytes, ModelRef]:
        """The answer and which model gave it. Raises BackendError."""

    @abstractmethod
    def decode(self, answer: bytes, sample: Sample) -> Any: ...

    def label(self, index: float) -> str:
        names = self._settings.labels
        return names[int(index)] if 0 <= int(index) < len(names) else str(int(index))

    def ranked(self, chances: Any) -> list[Classification]:
        import numpy as np

        scores = np.asarray(chances, np.float64).reshape(-1)
        if not np.isfinite(scores).all():
            raise ValueError("not all scores are finite")
        order = np.argsort(scores)[::-1][: self._top_k]
        return [Classification(self.label(i), float(scores[i])) for i in order if scores[i] >= self._threshold]
