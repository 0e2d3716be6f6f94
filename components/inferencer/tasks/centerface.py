"""Faces by CenterFace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml.messages import Detection
from inferencer.preprocess import Geometry
from inferencer.tasks.boxes import detections, number, suppressed
from inferencer.tasks.decoding import DecodingRunner, Outputs, Wanted, check, label
from inferencer.tasks.outputs import Misfit, Output, Plan

if TYPE_CHECKING:
    import onnxruntime as ort

    from edgeml.bundle import Bundle
    from inferencer.parts import Pipeline
    from inferencer.tasks.runner import Runner


def runner(bundle: Bundle, session: ort.InferenceSession, pipeline: Pipeline) -> Runner:
    return DecodingRunner(bundle, session, pipeline, fit, decode)


def fit(outputs: Sequence[Output], labels: Sequence[str], parameters: Mapping[str, Any]) -> Plan:
    number(parameters, "stride", 1, 256)
    number(parameters, "nms", 0, 1)
    by_name = {output.name: output for output in outputs}
    channels = {"heatmap": 1, "scale": 2, "offset": 2, "landmarks": 10}
    sides = {by_name[name].shape[2:] for name in channels if name in by_name}
    right = all(
        name in by_name and by_name[name].floats and by_name[name].shape[:2] == (1, count)
        for name, count in channels.items()
    )
    if not right or len(sides) != 1 or len(next(iter(sides))) != 2:
        raise Misfit(f"expected {', '.join(f'{name} [1, {count}, h, w]' for name, count in channels.items())}")
    return Plan(tuple(channels), parameters)


def decode(
    outputs: Outputs, geometry: Geometry, labels: Sequence[str], wanted: Wanted, parameters: Mapping[str, Any]
) -> list[Detection]:
    """CenterFace (Xu et al. 2019, arXiv:1911.03599): a heatmap of centres with size, offset and five landmarks.

    heatmap [1, 1, h, w]; scale, offset [1, 2, h, w] as (y, x), sizes as logarithms; landmarks [1, 10, h, w] as (y, x)
    pairs relative to the box. All in cells of `stride` input pixels.
    """
    stride = float(parameters.get("stride", 4))
    heat = outputs["heatmap"][0, 0]
    check(heat.max())  # which is NaN where any is
    rows, columns = np.nonzero(heat > wanted.threshold)
    if rows.size == 0:
        return []
    scores = heat[rows, columns]
    with np.errstate(over="ignore"):
        size = np.exp(outputs["scale"][0][:, rows, columns]) * stride
    check(size)
    offset = outputs["offset"][0][:, rows, columns]
    centre_x = (columns + offset[1] + 0.5) * stride
    centre_y = (rows + offset[0] + 0.5) * stride
    height, width = size
    boxes = np.stack([centre_x - width / 2, centre_y - height / 2, width, height], axis=1)
    marks = outputs["landmarks"][0][:, rows, columns].reshape(5, 2, -1).transpose(2, 0, 1)
    points = np.stack(
        [marks[:, :, 1] * width[:, None] + boxes[:, :1], marks[:, :, 0] * height[:, None] + boxes[:, 1:2]], axis=2
    )
    kept = suppressed(boxes, scores, wanted.threshold, float(parameters.get("nms", 0.3)))
    return detections(boxes[kept], scores[kept], [label(labels, 0)] * len(kept), geometry, points[kept])
