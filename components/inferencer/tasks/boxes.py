"""What decoders of boxes share."""

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from edgeml.messages import Detection
from inferencer.preprocess import Array, Geometry
from inferencer.tasks.decoding import check
from inferencer.tasks.outputs import Misfit

MAX_BOXES = 300  # kept before non-maximum suppression, best first


def number(parameters: Mapping[str, Any], name: str, low: float, high: float) -> None:
    value = parameters.get(name, low)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise Misfit(f"expected {low} to {high} as {name}, found {value!r}")


def suppressed(boxes: Array, scores: Array, threshold: float, overlap: float, classes: Array | None = None) -> Array:
    """Indexes that survive non-maximum suppression, best first; boxes of different classes do not compete."""
    best = np.argsort(scores)[::-1][:MAX_BOXES]
    check(boxes[best])
    chosen = boxes[best].astype(float)
    if classes is not None and len(best):
        chosen[:, :2] += (classes[best] * (np.abs(chosen).max() * 2 + 1))[:, None]
    kept = cv2.dnn.NMSBoxes(chosen.tolist(), scores[best].astype(float).tolist(), threshold, overlap)
    return best[np.asarray(kept, np.intp).reshape(-1)]


def detections(
    boxes: Array, scores: Array, names: Sequence[str], geometry: Geometry, points: Array | None
) -> list[Detection]:
    """Boxes [n, 4] and points [n, k, 2] of the model's input as detections in source pixels, clipped to the source."""
    limit = (geometry.width, geometry.height)
    start = np.clip(geometry.to_source(boxes[:, :2]), 0, limit)
    end = np.clip(geometry.to_source(boxes[:, :2] + boxes[:, 2:]), 0, limit)
    corners = np.round(np.concatenate([start, end - start], axis=1), 1).tolist()
    if points is not None:
        check(points)
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
