"""Faces by BlazeFace (Bazarevsky et al. 2019, arXiv:1907.05047), as MediaPipe trained it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml.messages import Detection
from inferencer.preprocess import Array, Geometry
from inferencer.tasks.boxes import detections, number, suppressed
from inferencer.tasks.decoding import DecodingRunner, Outputs, Wanted, check, label
from inferencer.tasks.outputs import Misfit, Output, Plan

if TYPE_CHECKING:
    import onnxruntime as ort

    from edgeml.bundle import Bundle
    from inferencer.parts import Pipeline
    from inferencer.tasks.runner import Runner

GRIDS = {512: (16, 2), 384: (8, 6)}  # by how many faces a grid can tell of: cells a side, and faces a cell
NUMBERS = 16  # of a face: a box and six points


def runner(bundle: Bundle, session: ort.InferenceSession, pipeline: Pipeline) -> Runner:
    return DecodingRunner(bundle, session, pipeline, fit, decode)


def fit(outputs: Sequence[Output], labels: Sequence[str], parameters: Mapping[str, Any]) -> Plan:
    number(parameters, "nms", 0, 1)
    by_shape = {output.shape: output.name for output in outputs if output.floats}
    wanted = [(1, count, width) for count in GRIDS for width in (1, NUMBERS)]
    if not all(shape in by_shape for shape in wanted):
        expected = ", ".join(str(list(shape)) for shape in wanted)
        raise Misfit(f"expected scores and faces of two grids: {expected}")
    return Plan(tuple(by_shape[shape] for shape in wanted), parameters)


def decode(
    outputs: Outputs, geometry: Geometry, labels: Sequence[str], wanted: Wanted, parameters: Mapping[str, Any]
) -> list[Detection]:
    """Of each grid scores [1, n, 1] before the sigmoid and faces [1, n, 16]: centre, size and six points (x, y).

    All are in pixels of the input, places relative to the centre of their cell. The points are both eyes, the nose, the
    mouth and both ears, those on the left of the picture first.
    """
    values = [np.asarray(value, np.float32)[0] for value in outputs.values()]
    logits = np.concatenate([values[0], values[2]])[:, 0]
    faces = np.concatenate([values[1], values[3]])
    check(logits)
    with np.errstate(over="ignore"):
        scores = 1 / (1 + np.exp(-logits))
    sure = np.flatnonzero(scores > wanted.threshold)
    centres = _centres()[sure] * geometry.size
    size = faces[sure, 2:4]
    boxes = np.concatenate([faces[sure, :2] + centres - size / 2, size], axis=1)
    points = faces[sure, 4:].reshape(-1, 6, 2) + centres[:, None]
    check(boxes)
    kept = suppressed(boxes, scores[sure], wanted.threshold, float(parameters.get("nms", 0.3)))
    return detections(boxes[kept], scores[sure][kept], [label(labels, 0)] * len(kept), geometry, points[kept])


def _centres() -> Array:
    """Centres [n, 2] of the cells of both grids, as fractions, each as often as it can tell of a face."""
    found = []
    for side, times in GRIDS.values():
        y, x = np.divmod(np.arange(side * side), side)
        found.append(np.repeat((np.stack([x, y], axis=1) + 0.5) / side, times, axis=0))
    return np.concatenate(found)
