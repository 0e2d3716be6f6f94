"""What models of other makers may give, made up by seed: three things in a picture, seen by many overlapping boxes.

The same arrays go to our decoders and, by tests/peers/decoders_reference.py, to the makers' own code.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
SIZE = (160, 128)  # width and height of the model's input
LABELS = ("bolt", "nut", "screw")
THRESHOLD, NMS = 0.3, 0.5
THINGS = ((40, 50, 30, 40, 0), (100, 60, 50, 30, 1), (110, 70, 40, 44, 2))  # centre, size and class
KEYPOINTS = 17


@dataclass(frozen=True)
class Case:
    """The outputs by name, and what model.json says of them besides the decoder."""

    outputs: dict[str, Array]
    parameters: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Array] = field(default_factory=dict)


def seen(count: int = 60, seed: int = 1) -> tuple[Array, Array]:
    """Boxes [n, 4] (centre, size, in pixels) around the things and elsewhere, and the scores [n, 3] of all labels."""
    random = np.random.default_rng(seed)
    things = np.array([THINGS[index % len(THINGS)] for index in range(count)], float)
    near = random.random(count) < 0.6
    boxes = things[:, :4] + random.normal(0, 2, (count, 4))
    elsewhere = np.stack([random.uniform(low, high, count) for low, high in ((5, 155), (5, 123), (8, 60), (8, 60))], 1)
    boxes = np.where(near[:, None], boxes, elsewhere)
    scores = random.uniform(0, 0.2, (count, len(LABELS)))
    scores[np.arange(count), things[:, 4].astype(int)] += random.uniform(0, np.where(near, 0.75, 0.3))
    return boxes.astype(np.float32), scores.astype(np.float32)


def logit(chances: Array) -> Array:
    return np.asarray(np.log(chances / (1 - chances)), np.float32)


def corners(boxes: Array) -> Array:
    return np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], axis=1)


def _keypoints(boxes: Array) -> Array:
    """[n, 51]: x, y and visibility of points within each box."""
    random = np.random.default_rng(2)
    places = boxes[:, None, :2] + random.uniform(-0.5, 0.5, (len(boxes), KEYPOINTS, 2)) * boxes[:, None, 2:]
    marks = np.concatenate([places, random.random((len(boxes), KEYPOINTS, 1))], axis=2)
    return marks.reshape(len(boxes), -1).astype(np.float32)


def _table(rest: Callable[[Array], Array] | None = None) -> Array:
    boxes, scores = seen()
    return np.concatenate([boxes, scores, *([rest(boxes)] if rest else [])], axis=1)


def yolo_v5() -> Case:
    boxes, scores = seen()
    objects = np.sqrt(scores.max(axis=1, keepdims=True))
    return Case({"output0": np.concatenate([boxes, objects, scores / objects], axis=1)[None]})


def yolo_v8() -> Case:
    return Case({"output0": _table().T[None]})


def yolo_v10() -> Case:
    return Case({"output0": _chosen()[None]})


def _chosen(rest: Callable[[Array], Array] | None = None) -> Array:
    """What a model without suppression gives: corners, score, class; the best of each thing, and weak ones."""
    boxes, scores = seen()
    best = scores.argmax(axis=0)
    rows = np.concatenate([best, np.flatnonzero(scores.max(axis=1) < THRESHOLD)])
    best_scores = scores.max(axis=1, keepdims=True)
    classes = scores.argmax(axis=1)[:, None].astype(np.float32)
    table = np.concatenate([corners(boxes), best_scores, classes, *([rest(boxes)] if rest else [])], axis=1)
    return np.asarray(table[rows], np.float32)


def yolo_pose() -> Case:
    table = _table(_keypoints)
    return Case({"output0": table.T[None]}, {"keypoints": KEYPOINTS})


def yolo_pose_v10() -> Case:
    return Case({"output0": _chosen(_keypoints)[None]}, {"keypoints": KEYPOINTS})


def _masks() -> Array:
    """[1, 4, h, w]: one hill for each thing, and a slope."""
    width, height = SIZE[0] // 4, SIZE[1] // 4
    x, y = np.meshgrid((np.arange(width) + 0.5) * 4, (np.arange(height) + 0.5) * 4)
    hills = [1.5 - ((x - cx) / w * 2) ** 2 - ((y - cy) / h * 2) ** 2 for cx, cy, w, h, _ in THINGS]
    return np.stack([*hills, x / SIZE[0] - 0.5])[None].astype(np.float32)


def _coefficients(boxes: Array) -> Array:
    random = np.random.default_rng(3)
    found = random.normal(0, 0.1, (len(boxes), 4))
    found[np.arange(len(boxes)), np.arange(len(boxes)) % 3] += 1
    return found.astype(np.float32)


def yolo_segment() -> Case:
    return Case({"output0": _table(_coefficients).T[None], "output1": _masks()})


def yolo_segment_v10() -> Case:
    return Case({"output0": _chosen(_coefficients)[None], "output1": _masks()})


def yolox() -> Case:
    """The boxes at the cells where their centres lie; all other cells see nothing."""
    boxes, scores = seen()
    tables = []
    for stride in (8, 16, 32):
        wide, tall = SIZE[0] // stride, SIZE[1] // stride
        table = np.zeros((tall, wide, 5 + len(LABELS)), np.float32)
        for box, score in zip(boxes[stride // 8 :: 3], scores[stride // 8 :: 3], strict=True):
            column, line = min(int(box[0] / stride), wide - 1), min(int(box[1] / stride), tall - 1)
            centre = box[:2] / stride - (column, line)
            table[line, column] = [
                *centre,
                *np.log(box[2:] / stride),
                np.sqrt(score.max()),
                *score / np.sqrt(score.max()),
            ]
        tables.append(table.reshape(-1, 5 + len(LABELS)))
    return Case({"output": np.concatenate(tables)[None]})


def detr() -> Case:
    boxes, scores = seen()
    rest = 1 - scores.sum(axis=1, keepdims=True).clip(0, 0.95)
    chances = np.concatenate([scores, rest], axis=1)
    return Case(
        {"logits": np.log(chances).astype(np.float32)[None], "pred_boxes": _fractions(boxes)[None]},
        {"scores": "logits"},
    )


def rt_detr() -> Case:
    boxes, scores = seen()
    return Case({"logits": logit(scores.clip(1e-4, 0.9999))[None], "pred_boxes": _fractions(boxes)[None]})


def _fractions(boxes: Array) -> Array:
    return np.asarray((boxes / (*SIZE, *SIZE)).clip(0, 1), np.float32)


def anchors() -> Array:
    """[n, 4]: centre and size, as fractions, a little off the boxes."""
    boxes, _ = seen()
    return _fractions(boxes * np.random.default_rng(4).uniform(0.9, 1.1, boxes.shape))


def ssd() -> Case:
    boxes, scores = seen()
    places, wanted = anchors(), _fractions(boxes)
    moves = np.concatenate(
        [(wanted[:, :2] - places[:, :2]) / places[:, 2:] / 0.1, np.log(wanted[:, 2:] / places[:, 2:]) / 0.2], axis=1
    )
    background = 1 - scores.sum(axis=1, keepdims=True).clip(0, 0.95)
    logits = np.log(np.concatenate([background, scores], axis=1))
    outputs = {"bbox_regression": moves[None].astype(np.float32), "cls_logits": logits[None].astype(np.float32)}
    return Case(
        outputs, {"anchors": "anchors.npy", "activation": "softmax", "scores": "cls_logits"}, {"anchors.npy": places}
    )


CASES: dict[str, tuple[str, Callable[[], Case]]] = {
    "yolo_v5": ("yolo", yolo_v5),
    "yolo_v8": ("yolo", yolo_v8),
    "yolo_v10": ("yolo", yolo_v10),
    "yolo_pose": ("yolo_pose", yolo_pose),
    "yolo_pose_v10": ("yolo_pose", yolo_pose_v10),
    "yolo_segment": ("yolo_segment", yolo_segment),
    "yolo_segment_v10": ("yolo_segment", yolo_segment_v10),
    "yolox": ("yolox", yolox),
    "detr": ("detr", detr),
    "rt_detr": ("detr", rt_detr),
    "ssd": ("ssd", ssd),
}
