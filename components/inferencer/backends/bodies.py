"""Samples as bodies of requests, and answers as numbers."""

import io
import json

import cv2
import numpy as np

from edgeml import numbers
from edgeml.errors import BackendError, JsonError
from edgeml.json_limits import loads
from edgeml.text import decoded
from inferencer.backends.remote import MAX_ANSWER_BYTES
from inferencer.sample import Sample, Values, finites

_NO_BRACKETS = str.maketrans("", "", "[]")


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
