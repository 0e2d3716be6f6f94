"""Model outputs to results. A decoder is a function of the named outputs; model.json chooses it by name."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from edgeml.errors import BundleError
from edgeml.messages import Classification, Detection, Regression
from edgeml.models import Bundle
from inferencer.preprocess import Array, Geometry

MAX_BOXES = 300  # kept before non-maximum suppression, best first


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the pipeline asks of a decoder: the lowest score, and how many labels of a classification."""

    threshold: float
    top_k: int


Outputs = Mapping[str, Array]
Decoder = Callable[[Outputs, Geometry, Sequence[str], Wanted, Mapping[str, Any]], Any]


def softmax(
    outputs: Outputs, geometry: Geometry, labels: Sequence[str], wanted: Wanted, parameters: Mapping[str, Any]
) -> list[Classification]:
    """Class scores [1, n] to the best labels, best first; `apply_softmax: false` if they are probabilities already."""
    scores = np.asarray(_first(outputs), np.float32).reshape(-1)
    _check(scores)
    if parameters.get("apply_softmax", True):
        scores = np.exp(scores - scores.max())
        scores /= scores.sum()
    found = np.flatnonzero(scores >= wanted.threshold)  # few of a thousand: sorting them all would take longer
    best = sorted(zip(scores[found].tolist(), found.tolist(), strict=True), reverse=True)[: wanted.top_k]
    return [Classification(_label(labels, index), round(score, 6)) for score, index in best]


def centerface(
    outputs: Outputs, geometry: Geometry, labels: Sequence[str], wanted: Wanted, parameters: Mapping[str, Any]
) -> list[Detection]:
    """CenterFace (Xu et al. 2019, arXiv:1911.03599): a heatmap of centres with size, offset and five landmarks.

    heatmap [1, 1, h, w]; scale, offset [1, 2, h, w] as (y, x), sizes as logarithms; landmarks [1, 10, h, w] as (y, x)
    pairs relative to the box. All in cells of `stride` input pixels.
    """
    stride = float(parameters.get("stride", 4))
    heat = outputs["heatmap"][0, 0]
    _check(heat.max())  # which is NaN where any is
    rows, columns = np.nonzero(heat > wanted.threshold)
    if rows.size == 0:
        return []
    scores = heat[rows, columns]
    with np.errstate(over="ignore"):
        size = np.exp(outputs["scale"][0][:, rows, columns]) * stride
    _check(size)
    offset = outputs["offset"][0][:, rows, columns]
    centre_x = (columns + offset[1] + 0.5) * stride
    centre_y = (rows + offset[0] + 0.5) * stride
    height, width = size
    boxes = np.stack([centre_x - width / 2, centre_y - height / 2, width, height], axis=1)
    marks = outputs["landmarks"][0][:, rows, columns].reshape(5, 2, -1).transpose(2, 0, 1)
    points = np.stack(
        [marks[:, :, 1] * width[:, None] + boxes[:, :1], marks[:, :, 0] * height[:, None] + boxes[:, 1:2]], axis=2
    )
    kept = _suppressed(boxes, scores, wanted.threshold, float(parameters.get("nms", 0.3)))
    return _detections(boxes[kept], scores[kept], [_label(labels, 0)] * len(kept), geometry, points[kept])


def yolo(
    outputs: Outputs, geometry: Geometry, labels: Sequence[str], wanted: Wanted, parameters: Mapping[str, Any]
) -> list[Detection]:
    """YOLO layouts: [1, n, 5 + classes] with objectness (v3, v5, v7), or [1, 4 + classes, n] without (v8 and later).

    Boxes are centre x, centre y, width, height in input pixels. `layout` in model.json: "v5" (default) or "v8".
    """
    table = np.asarray(_first(outputs), np.float32)[0]
    if parameters.get("layout", "v5") == "v8":
        table = table.T
        chances = table[:, 4:]
    else:
        _check(table[:, 4])
        table = table[table[:, 4] > wanted.threshold]  # a score is at most its objectness
        chances = table[:, 5:] * table[:, 4:5]
    if table.shape[0] == 0:
        return []
    classes = chances.argmax(axis=1)
    scores = chances[np.arange(len(classes)), classes]
    _check(scores)  # argmax takes a NaN for the largest
    sure = scores > wanted.threshold
    table, classes, scores = table[sure], classes[sure], scores[sure]
    boxes = table[:, :4].copy()
    _check(boxes)
    boxes[:, :2] -= boxes[:, 2:] / 2
    kept = _suppressed(boxes, scores, wanted.threshold, float(parameters.get("nms", 0.45)), classes)
    names = [_label(labels, int(index)) for index in classes[kept]]
    return _detections(boxes[kept], scores[kept], names, geometry, None)


def regression(
    outputs: Outputs, geometry: Geometry, labels: Sequence[str], wanted: Wanted, parameters: Mapping[str, Any]
) -> Regression:
    """The first output's only number."""
    value = float(np.asarray(_first(outputs)).reshape(-1)[0])
    _check(value)
    return Regression(value)


DECODERS: dict[str, Decoder] = {
    "softmax": softmax,
    "centerface": centerface,
    "yolo": yolo,
    "regression": regression,
}


def decoder_of(bundle: Bundle) -> Decoder:
    """The decoder that a bundle names. Raises BundleError listing those there are."""
    try:
        return DECODERS[bundle.manifest.output.decoder]
    except KeyError as error:
        raise BundleError(
            f"{bundle.path}: no decoder {bundle.manifest.output.decoder!r}, there are {', '.join(DECODERS)}"
        ) from error


def _check(scores: Array | float) -> None:
    """Raises ValueError for what compares with nothing: it would pass for a result in which nothing was found."""
    if not np.isfinite(scores).all():
        raise ValueError("the model's answer is not finite")


def _first(outputs: Outputs) -> Array:
    return next(iter(outputs.values()))


def _label(labels: Sequence[str], index: int) -> str:
    return labels[index] if index < len(labels) else str(index)


def _suppressed(boxes: Array, scores: Array, threshold: float, overlap: float, classes: Array | None = None) -> Array:
    """Indexes that survive non-maximum suppression, best first; boxes of different classes do not compete."""
    best = np.argsort(scores)[::-1][:MAX_BOXES]
    _check(boxes[best])
    chosen = boxes[best].astype(float)
    if classes is not None and len(best):
        chosen[:, :2] += (classes[best] * (np.abs(chosen).max() * 2 + 1))[:, None]
    kept = cv2.dnn.NMSBoxes(chosen.tolist(), scores[best].astype(float).tolist(), threshold, overlap)
    return best[np.asarray(kept, np.intp).reshape(-1)]


def _detections(
    boxes: Array, scores: Array, names: Sequence[str], geometry: Geometry, points: Array | None
) -> list[Detection]:
    """Boxes [n, 4] and points [n, k, 2] of the model's input as detections in source pixels, clipped to the source."""
    limit = (geometry.width, geometry.height)
    start = np.clip(geometry.to_source(boxes[:, :2]), 0, limit)
    end = np.clip(geometry.to_source(boxes[:, :2] + boxes[:, 2:]), 0, limit)
    corners = np.round(np.concatenate([start, end - start], axis=1), 1).tolist()
    if points is not None:
        _check(points)
    marks = np.round(geometry.to_source(points), 1).tolist() if points is not None else None
    return [
        Detection(
            label,
            round(float(score), 4),
            (box[0], box[1], box[2], box[3]),
            [(x, y) for x, y in marks[index]] if marks is not None else [],
        )
        for index, (label, score, box) in enumerate(zip(names, scores, corners, strict=True))
    ]
