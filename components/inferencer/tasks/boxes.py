"""What decoders of boxes share."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from edgeml.messages import Detection
from inferencer.preprocess import Array, Geometry
from inferencer.sample import MAX_BOXES
from inferencer.tasks.decoding import check
from inferencer.tasks.outputs import Misfit, Output

CANDIDATES = 3000  # kept before non-maximum suppression, best first: of one object there are dozens


def number(parameters: Mapping[str, Any], name: str, low: float, high: float) -> None:
    value = parameters.get(name, low)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise Misfit(f"expected {low} to {high} as {name}, found {value!r}")


def choice(parameters: Mapping[str, Any], name: str, *allowed: str) -> str:
    """One of some words, the first where none is given. Raises Misfit."""
    value = parameters.get(name, allowed[0])
    if value not in allowed:
        raise Misfit(f"expected {', '.join(allowed[:-1])} or {allowed[-1]} as {name}, found {value!r}")
    return str(value)


def pair(outputs: Sequence[Output], classes: Collection[int], parameters: Mapping[str, Any]) -> tuple[Output, Output]:
    """The outputs of boxes [1, n, 4] and of scores [1, n, c], c being one of `classes` if there are any.

    Where their shapes are the same, the parameter `scores` names that of the scores. Raises Misfit.
    """
    named = parameters.get("scores")
    tables = [output for output in outputs if output.floats and len(output.shape) == 3 and output.shape[0] == 1]
    found = [
        (boxes, scores)
        for boxes in tables
        for scores in tables
        if boxes is not scores
        and boxes.shape[1:] == (scores.shape[1], 4)
        and (not classes or scores.shape[2] in classes)
        and named in (None, scores.name)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise Misfit("expected the output of the scores to be named as scores in output.parameters")
    counts = f", c being {' or '.join(map(str, sorted(classes)))}" if classes else ""
    raise Misfit(f"expected boxes [1, n, 4] and scores [1, n, c]{counts}")


def cornered(boxes: Array, form: str) -> Array:
    """Boxes [n, 4] as (x, y, width, height), from corners (`xyxy`, `yxyx`), `cxcywh` or `xywh` itself."""
    first, last = boxes[:, :2], boxes[:, 2:]
    if form == "yxyx":
        first, last = first[:, ::-1], last[:, ::-1]
    if form in ("xyxy", "yxyx"):
        return np.concatenate([first, last - first], axis=1)
    return np.concatenate([first - last / 2 if form == "cxcywh" else first, last], axis=1)


def ranked(chances: Array, threshold: float, most: int = MAX_BOXES) -> tuple[Array, Array, Array]:
    """Rows, classes and values of up to `most` scores [n, classes] above `threshold`, best first.

    A row may come twice.
    """
    check(chances)
    places, classes = np.nonzero(chances > threshold)
    scores = chances[places, classes]
    best = np.argsort(-scores, kind="stable")[:most]
    return places[best], classes[best], scores[best]


def suppressed(boxes: Array, scores: Array, threshold: float, overlap: float, classes: Array | None = None) -> Array:
    """Indexes of up to MAX_BOXES that survive non-maximum suppression, best first.

    Boxes of different classes do not compete.
    """
    best = np.argsort(scores)[::-1][:CANDIDATES]
    check(boxes[best])
    chosen = boxes[best].astype(float)
    if classes is not None and len(best):
        chosen[:, :2] += (classes[best] * (np.abs(chosen).max() * 2 + 1))[:, None]
    kept = cv2.dnn.NMSBoxes(chosen.tolist(), scores[best].astype(float).tolist(), threshold, overlap)
    return best[np.asarray(kept, np.intp).reshape(-1)[:MAX_BOXES]]


def detections(
    boxes: Array,
    scores: Array,
    names: Sequence[str],
    geometry: Geometry,
    points: Array | None,
    seen: Array | None = None,
) -> list[Detection]:
    """Boxes [n, 4] and points [n, k, 2] of the model's input as detections in source pixels, clipped to the source.

    `seen` [n, k] is how visible each point is, from 0 to 1.
    """
    limit = (geometry.width, geometry.height)
    start = np.clip(geometry.to_source(boxes[:, :2]), 0, limit)
    end = np.clip(geometry.to_source(boxes[:, :2] + boxes[:, 2:]), 0, limit)
    corners = np.round(np.concatenate([start, end - start], axis=1), 1).tolist()
    if points is not None:
        check(points)
    marks = np.round(geometry.to_source(points), 1).tolist() if points is not None else None
    visible = np.round(seen.astype(float), 3).tolist() if seen is not None else None
    return [
        Detection(
            label,
            round(float(score), 4),
            (box[0], box[1], box[2], box[3]),
            [(x, y) for x, y in marks[index]] if marks is not None else [],
            visibility=visible[index] if visible is not None else [],
        )
        for index, (label, score, box) in enumerate(zip(names, scores, corners, strict=True))
    ]
