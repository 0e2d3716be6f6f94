"""What the YOLO family gives for each box, by layout: `v5`, `v8` or `v10`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from inferencer.preprocess import Array
from inferencer.sample import MAX_BOXES
from inferencer.tasks.boxes import suppressed
from inferencer.tasks.decoding import check
from inferencer.tasks.outputs import SLACK, Misfit, Output

LAYOUTS = ("v5", "v8", "v10")
KEYPOINTS = 51  # 17 of x, y and visibility: the pose models of COCO
MASKS = 32  # coefficients per box of the common segmentation models
NMS = 0.45


@dataclass(frozen=True, slots=True)
class Rows:
    """Boxes [n, 4] as (x, y, width, height) in input pixels, best first; `rest` [n, k] is what follows the scores."""

    boxes: Array
    scores: Array
    classes: Array
    rest: Array


def rows(value: Any, layout: str, rest: int, threshold: float, nms: float) -> Rows:
    """The boxes above `threshold` that survive suppression; `rest` says how many numbers follow the scores.

    v5: [1, n, 5 + classes + rest], with objectness (YOLO v3, v5, v7). v8: [1, 4 + classes + rest, n] (v8, v9, 11).
    Both give centre x, centre y, width, height. v10: [1, n, 6 + rest], corners, score and class, after suppression.
    """
    table = np.asarray(value, np.float32)[0]
    if layout == "v10":
        return _final(table, threshold)
    if layout == "v8":
        table = table.T
        chances = table[:, 4 : table.shape[1] - rest]
    else:
        check(table[:, 4])
        table = table[table[:, 4] > threshold]  # a score is at most its objectness
        chances = table[:, 5 : table.shape[1] - rest] * table[:, 4:5]
    classes = chances.argmax(axis=1)
    scores = chances[np.arange(len(classes)), classes]
    check(scores)  # argmax takes a NaN for the largest
    sure = scores > threshold
    table, classes, scores = table[sure], classes[sure], scores[sure]
    boxes = table[:, :4].copy()
    check(boxes)
    boxes[:, :2] -= boxes[:, 2:] / 2
    kept = suppressed(boxes, scores, threshold, nms, classes)
    return Rows(boxes[kept], scores[kept], classes[kept], table[kept, table.shape[1] - rest :])


def _final(table: Array, threshold: float) -> Rows:
    check(table[:, 4])
    table = table[table[:, 4] > threshold]
    table = table[np.argsort(-table[:, 4], kind="stable")][:MAX_BOXES]
    check(table)
    boxes = table[:, :4].copy()
    boxes[:, 2:] -= boxes[:, :2]
    return Rows(boxes, table[:, 4], table[:, 5].astype(np.intp), table[:, 6:])


def layout_of(outputs: Sequence[Output], classes: int, named: Any, rest: int = 0) -> tuple[Output, str]:
    """The table of boxes, and its layout: the named one or the only one that fits. Raises Misfit.

    `classes` is how many labels there are, 0 where that is not known; `rest` how many numbers follow the scores.
    """
    if named is not None and named not in LAYOUTS:
        raise Misfit(f"expected {', '.join(LAYOUTS[:-1])} or {LAYOUTS[-1]} as layout, found {named!r}")
    refused = Misfit(f"expected {_sizes(classes, rest, named)}")
    tables = [output for output in outputs if output.floats and len(output.shape) == 3 and output.shape[0] == 1]
    for output in tables:
        try:
            return output, _read_as(output, _layout(output.shape, classes, named, rest), rest)
        except Misfit as error:
            refused = error if output is tables[0] else refused
    raise refused


def _read_as(output: Output, layout: str, rest: int) -> str:
    for value in output.values:
        if layout == "v10":
            scores, kinds = value[0, :, 4], value[0, :, 5]
            if not np.array_equal(kinds, np.round(kinds)):
                raise Misfit(
                    "expected x, y, x, y, score, class in a row (v10), found classes that are no whole numbers"
                )
        else:
            table = value[0].T if layout == "v8" else value[0]
            scores = table[:, 4 : table.shape[1] - rest]
        if scores.size and not (scores.min() >= -SLACK and scores.max() <= 1 + SLACK):
            low, high = float(scores.min()), float(scores.max())
            raise Misfit(f"expected scores from 0 to 1, found {low:.4g} to {high:.4g} in their place ({layout})")
    return layout


def _layout(shape: tuple[int, ...], classes: int, named: str | None, rest: int) -> str:
    """Which layout a table [1, rows, columns] has. Raises Misfit where none fits, or several and none is named."""
    _, tall, wide = shape
    if not tall or not wide:
        raise Misfit("expected boxes, found an empty output")
    fits = {
        "v5": wide == 5 + classes + rest if classes else wide > 5 + rest,
        "v8": tall == 4 + classes + rest if classes else tall > 4 + rest,
        "v10": wide == 6 + rest,
    }
    if not classes and named is None:  # there are more boxes than numbers for each
        fits = {**fits, "v5": fits["v5"] and tall >= wide, "v8": fits["v8"] and wide >= tall}
    possible = [name for name, fit in fits.items() if fit and named in (None, name)]
    if len(possible) == 1:
        return possible[0]
    if possible:
        others = " and ".join(possible)
        raise Misfit(f"expected layout to be named in output.parameters, since {others} have this shape")
    raise Misfit(f"expected {_sizes(classes, rest, named)}{_perhaps(tall, wide, classes, rest)}")


def _sizes(classes: int, rest: int, named: str | None) -> str:
    counts = [str(first + classes + rest) if classes else f"{first + rest} + classes" for first in (5, 4)]
    sizes = {"v5": f"[1, n, {counts[0]}] (v5)", "v8": f"[1, {counts[1]}, n] (v8)", "v10": f"[1, n, {6 + rest}] (v10)"}
    expected = sizes[named] if named else f"{sizes['v5']}, {sizes['v8']} or {sizes['v10']}"
    return expected + (f" for {classes} labels" if classes else "")


def _perhaps(tall: int, wide: int, classes: int, rest: int) -> str:
    """What the table may be instead, by how many numbers a box has too many."""
    if rest:
        return ""
    kinds = {
        1: "rotated boxes (OBB), which have no decoder",
        MASKS: "masks: decoder yolo_segment",
        KEYPOINTS: "keypoints: decoder yolo_pose",
    }
    more = ((tall - 4 - classes, wide - 5 - classes) if classes else ()) + (wide - 6,)
    if what := next((kinds[extra] for extra in more if extra in kinds), ""):
        return f", this looks like {what}"
    hints = {4: "boxes and scores apart: decoder ssd, detr or detections", 6: "boxes after suppression: layout v10"}
    return f", this looks like {hints[wide]}" if wide in hints else ""
