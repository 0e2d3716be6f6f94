"""Boxes with outlines by the segmentation models of the YOLO family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import msgspec
import numpy as np

from edgeml.messages import Detection
from inferencer.preprocess import Array, Geometry
from inferencer.tasks.boxes import detections, number
from inferencer.tasks.decoding import DecodingRunner, Outputs, Wanted, check, label
from inferencer.tasks.outputs import Misfit, Output, Plan
from inferencer.tasks.yolo_rows import NMS, layout_of, rows

if TYPE_CHECKING:
    import onnxruntime as ort

    from edgeml.bundle import Bundle
    from inferencer.parts import Pipeline
    from inferencer.tasks.runner import Runner

MAX_OUTLINES, MAX_POINTS = 8, 200  # of one object: its largest parts, and the points of them all
ALL_POINTS = 3000  # of a picture, some 40 kB: a message to AWS IoT Core has at most 128
NEAR = 0.75  # pixels of the model's input that an outline may be off to spare points


def runner(bundle: Bundle, session: ort.InferenceSession, pipeline: Pipeline) -> Runner:
    return DecodingRunner(bundle, session, pipeline, fit, decode)


def fit(outputs: Sequence[Output], labels: Sequence[str], parameters: Mapping[str, Any]) -> Plan:
    number(parameters, "nms", 0, 1)
    masks = [output for output in outputs if output.floats and len(output.shape) == 4 and output.shape[0] == 1]
    if len(masks) != 1:
        raise Misfit("expected a table of boxes and one output [1, masks, h, w]")
    count = masks[0].shape[1]
    output, layout = layout_of(outputs, len(labels), parameters.get("layout"), count)
    return Plan((output.name, masks[0].name), {**parameters, "layout": layout, "masks": count})


def decode(
    outputs: Outputs, geometry: Geometry, labels: Sequence[str], wanted: Wanted, parameters: Mapping[str, Any]
) -> list[Detection]:
    """Boxes as `rows` says, behind each the coefficients of `masks` [1, k, h, w], which cover the whole input.

    An object is where the sum of the masks is positive within its box; its outlines are polygons in source pixels,
    its largest parts first.
    """
    table, masks = (np.asarray(value, np.float32) for value in outputs.values())
    nms = float(parameters.get("nms", NMS))
    found = rows(table, parameters["layout"], parameters["masks"], wanted.threshold, nms)
    check(found.rest)
    names = [label(labels, int(index)) for index in found.classes]
    boxes = detections(found.boxes, found.scores, names, geometry, None)
    most = min(MAX_POINTS, ALL_POINTS // max(1, len(boxes)))
    return [
        msgspec.structs.replace(box, outlines=_outlines(masks[0], coefficients, place, geometry, most))
        for box, coefficients, place in zip(boxes, found.rest, found.boxes, strict=True)
    ]


def _outlines(
    masks: Array, coefficients: Array, box: Array, geometry: Geometry, most: int
) -> list[list[tuple[float, float]]]:
    """Polygons of one object, of at most `most` points. Only the masks below its box are computed and enlarged."""
    _, lines, columns = masks.shape
    width, height = geometry.size
    step_x, step_y = width / columns, height / lines
    left, top = max(0, int(box[0] / step_x) - 1), max(0, int(box[1] / step_y) - 1)
    right = min(columns, int((box[0] + box[2]) / step_x) + 2)
    bottom = min(lines, int((box[1] + box[3]) / step_y) + 2)
    if right <= left or bottom <= top:
        return []
    part = np.tensordot(coefficients, masks[:, top:bottom, left:right], axes=1)
    check(part)
    size = round((right - left) * step_x), round((bottom - top) * step_y)
    inside = (cv2.resize(part, size, interpolation=cv2.INTER_LINEAR) > 0).astype(np.uint8)
    near, far = (
        np.clip(np.round(corner - (left * step_x, top * step_y)), 0, size).astype(int)
        for corner in (box[:2], box[:2] + box[2:])
    )
    inside[: near[1]], inside[far[1] :], inside[:, : near[0]], inside[:, far[0] :] = 0, 0, 0, 0
    contours, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    largest = sorted(contours, key=cv2.contourArea, reverse=True)[:MAX_OUTLINES]
    limit = np.array((geometry.width, geometry.height))
    polygons, points = [], 0
    for contour in largest:
        outline = _simple(contour, most - points)
        points += len(outline)
        if len(outline) >= 3:
            source = geometry.to_source(outline + np.array((left * step_x + 0.5, top * step_y + 0.5)))
            polygons.append([(x, y) for x, y in np.round(np.clip(source, 0, limit), 1).tolist()])
    return polygons


def _simple(contour: Any, most: int) -> Array:
    """The corners [n, 2] of a contour, at most `most`: the coarser, the more it has; none where that is no polygon."""
    near = NEAR
    while len(found := cv2.approxPolyDP(contour, near, True)) > most:
        if most < 3:
            return np.empty((0, 2))
        near *= 2
    return np.asarray(found, float).reshape(-1, 2)
