"""Boxes by YOLOX (Ge et al. 2021, arXiv:2107.08430), which are given relative to the cells of three grids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml.messages import Detection
from inferencer.preprocess import Array, Geometry
from inferencer.tasks.boxes import detections, number
from inferencer.tasks.decoding import DecodingRunner, Outputs, Wanted, check, first, label
from inferencer.tasks.outputs import Misfit, Output, Plan
from inferencer.tasks.yolo_rows import NMS, layout_of, rows

if TYPE_CHECKING:
    import onnxruntime as ort

    from edgeml.bundle import Bundle
    from inferencer.parts import Pipeline
    from inferencer.tasks.runner import Runner

STRIDES = (8, 16, 32)
LARGEST = 12.0  # of a side's logarithm, in cells: more than any input has


def runner(bundle: Bundle, session: ort.InferenceSession, pipeline: Pipeline) -> Runner:
    return DecodingRunner(bundle, session, pipeline, fit, decode)


def fit(outputs: Sequence[Output], labels: Sequence[str], parameters: Mapping[str, Any]) -> Plan:
    number(parameters, "nms", 0, 1)
    strides = parameters.get("strides", list(STRIDES))
    if (
        not isinstance(strides, list | tuple)
        or not strides
        or not all(type(s) is int and 0 < s < 1024 for s in strides)
    ):
        raise Misfit(f"expected whole numbers of pixels as strides, found {strides!r}")
    output, _ = layout_of(outputs, len(labels), "v5")
    if max(float(value[..., 2:4].max()) for value in output.values) > LARGEST:
        raise Misfit("expected sizes as logarithms, these are in pixels already: decoder yolo, layout v5")
    return Plan((output.name,), {**parameters, "strides": tuple(strides)})


def decode(
    outputs: Outputs, geometry: Geometry, labels: Sequence[str], wanted: Wanted, parameters: Mapping[str, Any]
) -> list[Detection]:
    """[1, n, 5 + classes]: centre in cells from the cell's corner, size as logarithm of cells, objectness, classes.

    n are the cells of all grids, of `strides` input pixels. Scores are probabilities.
    """
    table = np.array(first(outputs), np.float32)
    cells, steps = _grids(geometry.size, parameters["strides"])
    if table.shape[1] != len(cells):
        width, height = geometry.size
        raise ValueError(f"expected {len(cells)} boxes for {width}x{height} pixels, found {table.shape[1]}")
    table[0, :, :2] = (table[0, :, :2] + cells) * steps
    with np.errstate(over="ignore"):
        table[0, :, 2:4] = np.exp(table[0, :, 2:4]) * steps
    check(table[0, :, 4:])
    found = rows(table, "v5", 0, wanted.threshold, float(parameters.get("nms", NMS)))
    names = [label(labels, int(index)) for index in found.classes]
    return detections(found.boxes, found.scores, names, geometry, None)


def _grids(size: tuple[int, int], strides: Sequence[int]) -> tuple[Array, Array]:
    """Column and row of each cell [n, 2], and its stride [n, 1]: rows of the first grid first."""
    cells, steps = [], []
    for stride in strides:
        columns, lines = np.meshgrid(np.arange(size[0] // stride), np.arange(size[1] // stride))
        cells.append(np.stack([columns.reshape(-1), lines.reshape(-1)], axis=1))
        steps.append(np.full((columns.size, 1), stride))
    return np.concatenate(cells).astype(np.float32), np.concatenate(steps).astype(np.float32)
