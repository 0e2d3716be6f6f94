"""SageMaker real-time endpoints."""

import json
from typing import Any

import msgspec

from edgeml.component import Context
from edgeml.credentials import AwsClient
from edgeml.errors import BackendError
from edgeml.messages import Classification, Detection, ModelRef, Regression
from inferencer.config import Pipeline, SageMakerBackend
from inferencer.remote import MAX_ANSWER_BYTES, RemoteModel, encoded, number
from inferencer.sample import Sample


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

    def encode(self, sample: Sample) -> bytes:
        body = encoded(sample, self._settings.content_type, self._settings.quality)
        if len(body) > self._settings.max_payload_bytes:
            limit = self._settings.max_payload_bytes
            raise BackendError(f"endpoint {self._settings.endpoint}: input has {len(body)} bytes, {limit} are allowed")
        return body

    def ask(self, body: bytes) -> tuple[bytes, ModelRef]:
        endpoint = self._settings.endpoint
        accept = "text/csv" if self._settings.answer == "value" else "application/json"
        try:
            response = self._client.get().invoke_endpoint(
                EndpointName=endpoint, ContentType=self._settings.content_type, Accept=accept, Body=body
            )
            answer = response["Body"].read(MAX_ANSWER_BYTES)
        except Exception as error:  # botocore, urllib3 and parsers share no base class
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
                return self.ranked(table["predictions"] if isinstance(table, dict) else table)
            return self._own(table["results"])
        except (LookupError, TypeError, ValueError, RecursionError) as error:
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
