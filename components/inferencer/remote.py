"""Models in the network: SageMaker endpoints and HTTP APIs, behind one circuit breaker each."""

import io
import json
import logging
import threading
import time
from abc import abstractmethod
from typing import Any, Final
from urllib.parse import urlencode

import cv2
import msgspec
import numpy as np

from edgeml.component import Context
from edgeml.errors import BackendError
from edgeml.log import kv
from edgeml.messages import Classification, Detection, ModelRef, Regression
from inferencer.config import Breaker, HttpBackend, Pipeline, Remote, SageMakerBackend
from inferencer.sample import Outcome, Sample, Timer, Values

log = logging.getLogger(__name__)

DEFAULT_THRESHOLD: Final = 0.3
MAX_ANSWER_BYTES: Final = 8 * 2**20


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
        body = self.encode(sample)
        if not sample.valid():
            return None
        timer.lap("preprocess")
        try:
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
        order = np.argsort(scores)[::-1][: self._top_k]
        return [Classification(self.label(i), float(scores[i])) for i in order if scores[i] >= self._threshold]


class SageMakerModel(RemoteModel):
    """A SageMaker real-time endpoint, by InvokeEndpoint."""

    name = "sagemaker"
    _settings: SageMakerBackend

    def __init__(self, settings: SageMakerBackend, pipeline: Pipeline, context: Context, prefix: str) -> None:
        super().__init__(settings, pipeline, context, prefix)
        import boto3
        from botocore.config import Config

        config = Config(
            connect_timeout=settings.connect_timeout_s,
            read_timeout=settings.read_timeout_s,
            retries={"mode": "standard", "total_max_attempts": settings.attempts},
            max_pool_connections=settings.max_in_flight,
        )
        self._client = boto3.client("sagemaker-runtime", config=config)

    def encode(self, sample: Sample) -> bytes:
        body = encoded(sample, self._settings.content_type, self._settings.quality)
        if len(body) > self._settings.max_payload_bytes:
            limit = self._settings.max_payload_bytes
            raise BackendError(f"endpoint {self._settings.endpoint}: input has {len(body)} bytes, {limit} are allowed")
        return body

    def ask(self, body: bytes) -> tuple[bytes, ModelRef]:
        from botocore.exceptions import BotoCoreError, ClientError

        endpoint = self._settings.endpoint
        accept = "text/csv" if self._settings.answer == "value" else "application/json"
        try:
            response = self._client.invoke_endpoint(
                EndpointName=endpoint, ContentType=self._settings.content_type, Accept=accept, Body=body
            )
            answer = response["Body"].read(MAX_ANSWER_BYTES)
        except (BotoCoreError, ClientError) as error:
            raise BackendError(f"endpoint {endpoint}: {error}") from error
        return answer, ModelRef(endpoint, response.get("InvokedProductionVariant", ""))

    def decode(self, answer: bytes, sample: Sample) -> Any:
        try:
            if self._settings.answer == "value":
                return Regression(number(answer))
            table = json.loads(answer)
            if self._settings.answer == "object_detection":
                return self._boxes(table["prediction"], sample)
            if self._settings.answer == "image_classification":
                return self.ranked(table)
            return self._own(table["results"])
        except (KeyError, TypeError, ValueError, msgspec.ValidationError) as error:
            endpoint, start = self._settings.endpoint, answer[:80].decode(errors="replace")
            raise BackendError(
                f"endpoint {endpoint}: answer is no {self._settings.answer}: {error!r} in {start!r}"
            ) from error

    def _boxes(self, rows: list[list[float]], sample: Sample) -> list[Detection]:
        """Rows [class, score, xmin, ymin, xmax, ymax], relative to the image, as SageMaker's Object Detection gives."""
        height, width = sample.image.shape[:2]
        found = []
        for kind, score, *corners in sorted(rows, key=lambda row: -row[1]):
            left, top, right, bottom = (min(1.0, max(0.0, float(corner))) for corner in corners)
            if score >= self._threshold:
                box = (left * width, top * height, (right - left) * width, (bottom - top) * height)
                x, y, w, h = (round(side, 1) for side in box)
                found.append(Detection(self.label(kind), round(float(score), 4), (x, y, w, h)))
        return found

    def _own(self, results: Any) -> Any:
        kinds: dict[str, Any] = {"detection": list[Detection], "classification": list[Classification]}
        kind = kinds.get(self._settings.task, Regression)
        found = msgspec.convert(results, kind)
        return [item for item in found if item.score >= self._threshold] if isinstance(found, list) else found


class HttpModel(RemoteModel):
    """The live-inference API: GET <url>?features=<csv> answers a number, or probabilities."""

    name = "http"
    _settings: HttpBackend

    def __init__(self, settings: HttpBackend, pipeline: Pipeline, context: Context, prefix: str) -> None:
        super().__init__(settings, pipeline, context, prefix)
        import urllib3

        retries = urllib3.Retry(
            settings.attempts - 1,
            backoff_factor=0.2,
            backoff_jitter=0.2,
            backoff_max=5,
            status_forcelist=(429, 500, 502, 503, 504),
            redirect=0,
        )
        timeout = urllib3.Timeout(connect=settings.connect_timeout_s, read=settings.read_timeout_s)
        self._pool = urllib3.PoolManager(maxsize=settings.max_in_flight, retries=retries, timeout=timeout)
        self._headers = {"Accept": "application/json, text/csv"}
        if settings.api_key_secret:
            self._headers["x-api-key"] = context.ipc.secret(settings.api_key_secret)

    def encode(self, sample: Sample) -> bytes:
        return csv(sample.values)

    def ask(self, body: bytes) -> tuple[bytes, ModelRef]:
        import urllib3

        url = self._settings.url
        try:
            response = self._pool.request(
                "GET", f"{url}?{urlencode({'features': body})}", headers=self._headers, preload_content=False
            )
            try:
                answer = response.read(MAX_ANSWER_BYTES)
            finally:
                response.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise BackendError(f"{url}: {error}") from error
        if response.status != 200:
            raise BackendError(f"{url}: status {response.status}: {answer[:200].decode(errors='replace')}")
        return answer, ModelRef(response.headers.get("x-model-name", url), response.headers.get("x-model-version", ""))

    def decode(self, answer: bytes, sample: Sample) -> Any:
        try:
            if self._settings.task == "regression":
                return Regression(number(answer))
            return self.ranked([float(value) for value in answer.replace(b"[", b"").replace(b"]", b"").split(b",")])
        except ValueError as error:
            raise BackendError(f"{self._settings.url}: answer is no {self._settings.task}: {answer[:80]!r}") from error

    def close(self) -> None:
        self._pool.clear()


class WithFallback:
    """Asks `first`; while that fails, `second` answers."""

    def __init__(self, first: Any, second: Any) -> None:
        self._first, self._second = first, second

    def poll(self) -> bool:
        ready, spare = self._first.poll(), self._second.poll()
        return bool(ready or spare)

    def infer(self, sample: Sample) -> Outcome | None:
        try:
            outcome: Outcome | None = self._first.infer(sample)
        except BackendError as error:
            if not self._second.poll():
                raise
            log.debug("fallback answers %s", kv(error=error))
            outcome = self._second.infer(sample)
        return outcome

    def close(self) -> None:
        self._first.close()
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
    try:
        numbers = [float(value) for value in (values.values() if isinstance(values, dict) else values)]
    except (TypeError, ValueError) as error:
        raise BackendError(f"expected numbers: {error}") from error
    if not np.isfinite(numbers).all():
        raise BackendError(f"expected finite numbers, got {numbers}")
    return numbers


def csv(values: Values) -> bytes:
    return ",".join(repr(value) for value in row(values)).encode()


def number(answer: bytes) -> float:
    """The number in `12.5`, `[12.5]`, `[[12.5]]`, `{"prediction": 12.5}` or `{"predictions": [[12.5]]}`. ValueError."""
    try:
        found = json.loads(answer)
    except ValueError:
        found = float(answer)
    while isinstance(found, list | dict) and len(found) == 1:
        found = next(iter(found.values() if isinstance(found, dict) else found))
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise ValueError(f"no number in {answer[:80]!r}")
    return float(found)
