"""SageMaker real-time endpoints."""

from __future__ import annotations

import functools
import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import Meta

from edgeml.credentials import AwsClient
from edgeml.errors import BackendError, HttpError, HttpTimeoutError
from edgeml.json_limits import loads
from edgeml.messages import Classification, Detection, ModelRef, Regression
from inferencer.backends.remote import MAX_ANSWER_BYTES, MAX_NAME, Remote, RemoteModel
from inferencer.parts import Model, Place
from inferencer.sample import Sample

if TYPE_CHECKING:
    import ssl

    from edgeml.component import Context
    from inferencer.parts import Pipeline

MAX_BOXES = 1000  # of an answer, best first
FARTHEST = 1e6  # pixels that a box may be off or wide


class SageMakerBackend(Remote, frozen=True, kw_only=True, tag="sagemaker", tag_field="type"):
    endpoint: Annotated[str, Meta(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9-]{0,62}$", description="Endpoint name")]
    content_type: Annotated[
        Literal["image/jpeg", "application/x-npy", "text/csv", "application/json"], Meta(description="How inputs go")
    ] = "image/jpeg"
    answer: Annotated[
        Literal["results", "object_detection", "image_classification", "value"],
        Meta(description="Our container's JSON, an answer of SageMaker's built-in algorithms, or a number"),
    ] = "results"
    quality: Annotated[int, Meta(ge=10, le=100, description="JPEG quality")] = 90
    max_payload_bytes: Annotated[
        int, Meta(ge=1, le=25 * 2**20, description="Larger inputs are refused before sending")
    ] = 6 * 2**20

    def open(self, place: Place) -> Model:
        return SageMakerModel(self, place.pipeline, place.context, place.prefix)


class SageMakerModel(RemoteModel):
    """A SageMaker real-time endpoint, by InvokeEndpoint."""

    name = "sagemaker"
    _settings: SageMakerBackend

    def __init__(self, settings: SageMakerBackend, pipeline: Pipeline, context: Context, prefix: str) -> None:
        super().__init__(settings, pipeline, context, prefix)
        self._client = AwsClient(
            "sagemaker-runtime",
            connect_timeout=settings.connect_timeout_s,
            read_timeout=settings.read_timeout_s,
            retries={"mode": "standard", "total_max_attempts": settings.attempts},
            max_pool_connections=settings.max_in_flight,
        )

    @functools.cached_property
    def _sender(self) -> Sender:
        return Sender(self._settings, self._client.get().meta.endpoint_url)

    def encode(self, sample: Sample) -> bytes:
        from inferencer.backends.bodies import encoded

        body = encoded(sample, self._settings.content_type, self._settings.quality)
        if len(body) > self._settings.max_payload_bytes:
            limit = self._settings.max_payload_bytes
            raise BackendError(f"endpoint {self._settings.endpoint}: input has {len(body)} bytes, {limit} are allowed")
        return body

    def ask(self, body: bytes) -> tuple[bytes, ModelRef]:
        endpoint = self._settings.endpoint
        accept = "text/csv" if self._settings.answer == "value" else "application/json"
        try:
            client = self._client.get()
            client.meta.events.register("before-send.sagemaker-runtime", self._sender.send, unique_id="edgeml")
            response = client.invoke_endpoint(
                EndpointName=endpoint, ContentType=self._settings.content_type, Accept=accept, Body=body
            )
            answer = response["Body"].read()
        except Exception as error:  # botocore's own, and what its parsers make of odd answers
            raise BackendError(f"endpoint {endpoint}: {error}") from error
        return answer, ModelRef(endpoint, response.get("InvokedProductionVariant", "")[:MAX_NAME])

    def decode(self, answer: bytes, sample: Sample) -> Any:
        from inferencer.backends.bodies import number

        try:
            if self._settings.answer == "value":
                return Regression(number(answer))
            table = loads(answer, "answer", max_bytes=MAX_ANSWER_BYTES)
            if self._settings.answer == "object_detection":
                return self._boxes(table["prediction"], sample)
            if self._settings.answer == "image_classification":
                return self.ranked(table["predictions"] if isinstance(table, dict) else table)
            return self._own(table["results"])
        except (LookupError, TypeError, ValueError, ArithmeticError) as error:
            endpoint, start = self._settings.endpoint, answer[:80].decode(errors="replace")
            raise BackendError(
                f"endpoint {endpoint}: answer is no {self._settings.answer}: {error!r} in {start!r}"
            ) from error

    def _boxes(self, rows: list[list[float]], sample: Sample) -> list[Detection]:
        """Rows [class, score, xmin, ymin, xmax, ymax], relative to the image, as SageMaker's Object Detection gives."""
        height, width = sample.image.shape[:2]
        found = []
        for kind, score, *corners in sorted(rows, key=lambda row: -row[1])[:MAX_BOXES]:
            left, top, right, bottom = (min(1.0, max(0.0, float(corner))) for corner in corners)
            if score >= self._lowest:
                box = (left * width, top * height, (right - left) * width, (bottom - top) * height)
                x, y, w, h = (round(side, 1) for side in box)
                found.append(Detection(self.label(kind), round(float(score), 4), (x, y, w, h)))
        return found

    def _own(self, results: Any) -> Any:
        kinds: dict[str, Any] = {"detection": list[Detection], "classification": list[Classification]}
        kind = kinds.get(self._settings.task, Regression)
        found = msgspec.convert(results, kind)
        least = self._lowest if self._settings.task == "detection" else self._threshold
        if not isinstance(found, list):
            return found
        kept = [item for item in found if item.score >= least]
        if len(kept) > MAX_BOXES:
            kept = sorted(kept, key=lambda item: -item.score)[:MAX_BOXES]
        boxes = [item.box for item in kept if isinstance(item, Detection)]
        if wrong := [box for box in boxes if max(map(abs, box)) > FARTHEST]:
            raise ValueError(f"expected a box in pixels, found {wrong[0]}")
        return kept

    def close(self) -> None:
        if "_sender" in vars(self):
            self._sender.close()


class Sender:
    """Sends what botocore has signed, in its place: its own client lets a server trickle for ever."""

    def __init__(self, settings: SageMakerBackend, endpoint: str) -> None:
        """`endpoint` is its URL: without TLS no certificates are read."""
        from edgeml import http

        self._limits = settings.limits
        context = _trusting() if endpoint.lower().startswith("https:") else None
        self._http = http.Client(idle=settings.max_in_flight, context=context)

    def send(self, request: Any, **event: Any) -> Any:
        """Handler of before-send: the answer as botocore's own client gives it, or an error that it retries."""
        from botocore.awsrequest import AWSResponse
        from botocore.exceptions import HTTPClientError, ReadTimeoutError

        from edgeml.http import shown

        headers = {name: _text(value) for name, value in request.headers.items()}
        body = bytes(request.body) if request.body is not None else None
        try:
            answer = self._http.request(
                request.method, request.url, self._limits, headers=headers, body=body, redirects=None
            )
        except HttpTimeoutError as error:
            raise ReadTimeoutError(endpoint_url=shown(request.url), error=error) from error
        except HttpError as error:
            raise HTTPClientError(error=f"connection failed: {error}") from error
        return AWSResponse(request.url, answer.status, answer.headers, _Body(answer.body))

    def close(self) -> None:
        self._http.close()


def _trusting() -> ssl.SSLContext:
    """The certificates that botocore would trust."""
    import ssl

    from botocore.httpsession import get_cert_path
    from botocore.session import Session

    return ssl.create_default_context(cafile=Session().get_config_variable("ca_bundle") or get_cert_path(True))


class _Body(io.BytesIO):
    def stream(self, *_: Any, **options: Any) -> Iterator[bytes]:
        yield self.read()


def _text(value: str | bytes) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value
