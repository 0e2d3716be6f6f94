"""Boxes by the YOLO family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml.messages import Detection
from inferencer.preprocess import Geometry
from inferencer.tasks.boxes import detections, number, suppressed
from inferencer.tasks.decoding import DecodingRunner, Outputs, Wanted, check, first, label
from inferencer.tasks.outputs import SLACK, Misfit, Output, Plan

if TYPE_CHECKING:
    import onnxruntime as ort

    from edgeml.bundle import Bundle
    from inferencer.parts import Pipeline
    from inferencer.tasks.runner import Runner

KEYPOINTS = 51  # 17 of x, y and visibility: the pose models of COCO
MASKS = 32  # coefficients per box of the common segmentation models


def runner(bundle: Bundle, session: ort.InferenceSession, pipeline: Pipeline) -> Runner:
    return DecodingRunner(bundle, session, pipeline, fit, decode)


def fit(outputs: Sequence[Output], labels: Sequence[str], parameters: Mapping[str, Any]) -> Plan:
    number(parameters, "nms", 0, 1)
    layout = parameters.get("layout")
    if layout not in (None, "v5", "v8"):
        raise Misfit(f"expected v5 or v8 as layout, found {layout!r}")
    if len(outputs) > 1 and any(len(output.shape) == 4 for output in outputs):
        raise Misfit("expected boxes alone, this is a segmentation model")
    tables = [output for output in outputs if output.floats and len(output.shape) == 3 and output.shape[0] == 1]
    refused = Misfit("expected [1, n, 5 + classes] (v5) or [1, 4 + classes, n] (v8)")
    for output in tables:
        try:
            return Plan((output.name,), {**parameters, "layout": _read_as(output, len(labels), layout)})
        except Misfit as error:
            refused = error if output is tables[0] else refused
    raise refused


def _read_as(output: Output, classes: int, named: str | None) -> str:
    layout = _layout(output.shape, classes, named)
    for value in output.values:
        scores = value[0, 4:] if layout == "v8" else value[0, :, 4:]
        if scores.size and not (scores.min() >= -SLACK and scores.max() <= 1 + SLACK):
            low, high = float(scores.min()), float(scores.max())
            raise Misfit(f"expected scores from 0 to 1, found {low:.4g} to {high:.4g} in their place ({layout})")
    return layout


def _layout(shape: tuple[int, ...], classes: int, named: str | None) -> str:
    """Which layout a table [1, rows, columns] has. Raises Misfit where none fits, or several and none is named."""
    _, rows, columns = shape
    if not rows or not columns:
        raise Misfit("expected boxes, found an empty output")
    fits = {
        "v5": columns == 5 + classes if classes else columns > 5,
        "v8": rows == 4 + classes if classes else rows > 4,
    }
    if not classes and named is None:  # there are more boxes than numbers for each
        fits = {"v5": fits["v5"] and rows >= columns, "v8": fits["v8"] and columns >= rows}
    possible = [name for name, fit in fits.items() if fit and named in (None, name)]
    suppressed = columns == 6 and named is None  # x, y, x, y, score, class
    if len(possible) == 1 and not suppressed:
        return possible[0]
    if possible:
        others = " and ".join([*possible, *(["boxes after suppression, which have no decoder"] if suppressed else [])])
        raise Misfit(f"expected layout to be named in output.parameters, since {others} have this shape")
    counts = (f"{5 + classes}", f"{4 + classes}") if classes else ("5 + classes", "4 + classes")
    sizes = {"v5": f"[1, n, {counts[0]}] (v5)", "v8": f"[1, {counts[1]}, n] (v8)"}
    expected = (sizes[named] if named else " or ".join(sizes.values())) + (f" for {classes} labels" if classes else "")
    raise _unreadable(f"expected {expected}", rows, columns, classes, suppressed)


def _unreadable(expected: str, rows: int, columns: int, classes: int, suppressed: bool) -> Misfit:
    """What the table may be instead, by how many numbers a box has too many."""
    kinds = {1: "rotated boxes (OBB)", MASKS: "masks (segmentation)", KEYPOINTS: "keypoints (pose)"}
    more = (rows - 4 - classes, columns - 5 - classes) if classes else ()
    if suppressed:
        return Misfit(f"{expected}, this looks like boxes after suppression, which have no decoder")
    if what := next((kinds[extra] for extra in more if extra in kinds), ""):
        return Misfit(f"{expected}, this looks like {what}, which have no decoder")
    return Misfit(expected)


def decode(
    outputs: Outputs, geometry: Geometry, labels: Sequence[str], wanted: Wanted, parameters: Mapping[str, Any]
) -> list[Detection]:
    """YOLO layouts: [1, n, 5 + classes] with objectness (v3, v5, v7), or [1, 4 + classes, n] without (v8 and later).

    Boxes are centre x, centre y, width, height in input pixels. `layout` in model.json: "v5" (default) or "v8".
    """
    table = np.asarray(first(outputs), np.float32)[0]
    if parameters.get("layout", "v5") == "v8":
        table = table.T
        chances = table[:, 4:]
    else:
        check(table[:, 4])
        table = table[table[:, 4] > wanted.threshold]  # a score is at most its objectness
        chances = table[:, 5:] * table[:, 4:5]
    if table.shape[0] == 0:
        return []
    classes = chances.argmax(axis=1)
    scores = chances[np.arange(len(classes)), classes]
    check(scores)  # argmax takes a NaN for the largest
    sure = scores > wanted.threshold
    table, classes, scores = table[sure], classes[sure], scores[sure]
    boxes = table[:, :4].copy()
    check(boxes)
    boxes[:, :2] -= boxes[:, 2:] / 2
    kept = suppressed(boxes, scores, wanted.threshold, float(parameters.get("nms", 0.45)), classes)
    names = [label(labels, int(index)) for index in classes[kept]]
    return detections(boxes[kept], scores[kept], names, geometry, None)
