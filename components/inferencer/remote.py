"""Models in the network: what they share. A circuit breaker each, timing, inputs as bodies, answers as results."""

import io
import json
import logging
import threading
import time
from abc import abstractmethod
from typing import Any, Final

import cv2
import numpy as np

from edgeml import numbers
from edgeml.component import Context
from edgeml.errors import BackendError, EdgemlError
from edgeml.http import Limits
from edgeml.json_limits import JsonError, loads
from edgeml.log import kv
from edgeml.messages import Classification, ModelRef
from edgeml.text import decoded
from inferencer.config import Breaker, Pipeline, Remote
from inferencer.sample import Model, Outcome, Sample, Timer, Values, finites, foreign

log = logging.getLogger(__name__)

DEFAULT_THRESHOLD: Final = 0.3
MAX_ANSWER_BYTES: Final = 8 * 2**20
MAX_NAME: Final = 200  # characters of a model's name and version, as a server gives them


class Circuit:
    """Opens after failures in a row, lets one attempt through when its time is over, closes on success."""

    def __init__(self, settings: Breaker, name: str, context: Context) -> None:
        self._settings, self._name, self._health = settings, name, context.health
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
                self._health.note(self._name, "")
            self._failures, self._opens_at = 0, 0.0

    def failed(self, error: BackendError) -> None:
        with self._lock:
            self._failures += 1
            if self._failures >= self._settings.failures:
                self._opens_at = time.monotonic() + self._settings.open_s
                log.warning("circuit open %s", kv(backend=self._name, for_s=self._settings.open_s, error=error))
                self._health.note(self._name, f"circuit open: {error}")
                self._health.count(f"{self._name}.circuit_opened")


class RemoteModel:
    """What remote models share: breaker, timing, decoding. Subclasses `encode` a sample and `ask`."""

    name: str

    def __init__(self, settings: Remote, pipeline: Pipeline, context: Context, prefix: str) -> None:
        self._settings, self._context = settings, context
        self._threshold = pipeline.score_threshold or DEFAULT_THRESHOLD
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
        return Outcome(self._settings.task, model, results, timer, backend=self.name)

    def close(self) -> None:
        return

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
        scores = np.asarray(chances, np.float64).reshape(-1)
        if not np.isfinite(scores).all():
            raise ValueError("not all scores are finite")
        order = np.argsort(scores)[::-1][: self._top_k]
        return [Classification(self.label(i), float(scores[i])) for i in order if scores[i] >= self._threshold]


class WithFallback:
    """Asks `first`; while that fails, `second` answers."""

    def __init__(self, pipeline: str, first: Model, second: Model) -> None:
        self._pipeline, self._first, self._second = pipeline, first, second
        self._failing = False

    def poll(self) -> bool:
        ready, spare = self._first.poll(), self._second.poll()
        return bool(ready or spare)

    def infer(self, sample: Sample) -> Outcome | None:
        try:
            outcome = self._first.infer(sample)
        except Exception as error:
            if not self._second.poll():
                raise
            if not self._failing:
                unexpected = None if isinstance(error, EdgemlError) else error
                log.warning("fallback answers %s", kv(pipeline=self._pipeline, error=error), exc_info=unexpected)
            self._failing = True
            return self._second.infer(sample)
        if self._failing:
            log.info("fallback rests, the backend answers again %s", kv(pipeline=self._pipeline))
        self._failing = False
        return outcome

    def close(self) -> None:
        try:
            self._first.close()
        finally:
            self._second.close()


def encoded(sample: Sample, content_type: str, quality: int) -> bytes:
    """A sample as the body of a request. Raises BackendError when it cannot be expressed so."""
    if content_type == "image/jpeg":
        image = sample.image
        image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) if sample.pixel_format == "rgb24" else image
        ok, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if not ok:
            raise BackendError(f"image {image.shape} cannot be encoded as JPEG")
        return data.tobytes()
    if content_type == "application/x-npy":
        buffer = io.BytesIO()
        data = sample.data if isinstance(sample.data, np.ndarray) else np.array([row(sample.values)], np.float32)
        np.save(buffer, data, allow_pickle=False)
        return buffer.getvalue()
    if content_type == "text/csv":
        return csv(sample.values)
    return json.dumps({"instances": [row(sample.values)]}).encode()


def row(values: Values) -> list[float]:
    """Values as finite numbers, those of an object in its order. Raises BackendError."""
    return finites(values.values() if isinstance(values, dict) else values)


def csv(values: Values) -> bytes:
    return ",".join(repr(value) for value in row(values)).encode()


def number(answer: bytes) -> float:
    """The number in `12.5`, `[12.5]`, `[[12.5]]`, `{"prediction": 12.5}` or `{"predictions": [[12.5]]}`. ValueError."""
    try:
        found = loads(answer, "answer", max_bytes=MAX_ANSWER_BYTES)
    except JsonError:
        found = numbers.number(decoded(answer).strip())
    while isinstance(found, list | dict) and len(found) == 1:
        found = next(iter(found.values() if isinstance(found, dict) else found))
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise ValueError(f"no number in {answer[:80]!r}")
    return float(found)


def numbers_of(answer: bytes) -> list[float]:
    """The numbers of a JSON list, or of one of lists, or of `0.1,0.7`. Raises ValueError."""
    text = decoded(answer).translate(_NO_BRACKETS)
    return [numbers.number(part.strip()) for part in text.split(",")]


def limits(settings: Remote) -> Limits:
    """What one attempt may cost: whatever the server does, it is over after both time-outs."""
    return Limits(
        total_s=settings.connect_timeout_s + settings.read_timeout_s,
        connect_s=settings.connect_timeout_s,
        answer_s=settings.read_timeout_s,
        max_bytes=MAX_ANSWER_BYTES,
    )


_NO_BRACKETS = str.maketrans("", "", "[]")
