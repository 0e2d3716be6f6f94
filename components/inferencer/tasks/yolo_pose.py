"""Boxes with keypoints by the YOLO family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgeml.messages import Detection
from inferencer.preprocess import Geometry
from inferencer.tasks.boxes import detections, number
from inferencer.tasks.decoding import DecodingRunner, Outputs, Wanted, check, first, label
from inferencer.tasks.outputs import Misfit, Output, Plan
from inferencer.tasks.yolo_rows import KEYPOINTS, NMS, layout_of, rows

if TYPE_CHECKING:
    import onnxruntime as ort

    from edgeml.bundle import Bundle
    from inferencer.parts import Pipeline
    from inferencer.tasks.runner import Runner

MAX_POINTS = 1024


def runner(bundle: Bundle, session: ort.InferenceSession, pipeline: Pipeline) -> Runner:
    return DecodingRunner(bundle, session, pipeline, fit, decode)


def fit(outputs: Sequence[Output], labels: Sequence[str], parameters: Mapping[str, Any]) -> Plan:
    number(parameters, "nms", 0, 1)
    points, numbers = parameters.get("keypoints", KEYPOINTS // 3), parameters.get("numbers", 3)
    if type(points) is not int or not 1 <= points <= MAX_POINTS:
        raise Misfit(f"expected 1 to {MAX_POINTS} as keypoints, found {points!r}")
    if numbers not in (2, 3):
        raise Misfit(f"expected 2 (x, y) or 3 (x, y, visibility) as numbers of a keypoint, found {numbers!r}")
    output, layout = layout_of(outputs, len(labels) or 1, parameters.get("layout"), points * numbers)
    return Plan((output.name,), {**parameters, "layout": layout, "keypoints": points, "numbers": numbers})


def decode(
    outputs: Outputs, geometry: Geometry, labels: Sequence[str], wanted: Wanted, parameters: Mapping[str, Any]
) -> list[Detection]:
    """Boxes as `rows` says, behind each the keypoints (x, y, visibility) in input pixels, visibility from 0 to 1.

    All of them become landmarks, in the model's order, with their visibility beside them.
    """
    points, numbers = parameters["keypoints"], parameters["numbers"]
    nms = float(parameters.get("nms", NMS))
    found = rows(first(outputs), parameters["layout"], points * numbers, wanted.threshold, nms)
    marks = found.rest.reshape(-1, points, numbers)
    check(marks)
    names = [label(labels, int(index)) for index in found.classes]
    seen = marks[:, :, 2] if numbers == 3 else None
    return detections(found.boxes, found.scores, names, geometry, marks[:, :, :2], seen)
