"""Boxes by SSD and what descends from it: a box and the scores of all classes for each of many places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml.errors import BundleError
from edgeml.messages import Detection
from inferencer.preprocess import Array, Geometry
from inferencer.tasks.boxes import CANDIDATES, choice, cornered, detections, number, pair, ranked, suppressed
from inferencer.tasks.decoding import DecodingRunner, Outputs, Wanted, check, label
from inferencer.tasks.outputs import Misfit, Output, Plan, flag, probabilities

if TYPE_CHECKING:
    import onnxruntime as ort

    from edgeml.bundle import Bundle
    from inferencer.parts import Pipeline
    from inferencer.tasks.runner import Runner

VARIANCES = [0.1, 0.1, 0.2, 0.2]  # of centre x, centre y, width, height, as Liu et al. 2016 (arXiv:1512.02325) trained


def runner(bundle: Bundle, session: ort.InferenceSession, pipeline: Pipeline) -> Runner:
    anchors = _anchors(bundle)
    return DecodingRunner(bundle, session, pipeline, partial(fit, anchors), partial(decode, anchors))


def _anchors(bundle: Bundle) -> Array | None:
    name = bundle.manifest.output.parameters.get("anchors")
    if name is None:
        return None
    if not isinstance(name, str):
        raise BundleError(f"{bundle.path}: expected the name of a .npy file as anchors, found {name!r}")
    found = bundle.array(name)
    if found.ndim != 2 or found.shape[1] != 4 or found.dtype.kind != "f" or not np.isfinite(found).all():
        raise BundleError(f"{bundle.path / name}: expected numbers [n, 4], found {found.dtype} {list(found.shape)}")
    return found.astype(np.float32)


def fit(anchors: Array | None, outputs: Sequence[Output], labels: Sequence[str], parameters: Mapping[str, Any]) -> Plan:
    number(parameters, "nms", 0, 1)
    choice(parameters, "boxes", "xyxy", "yxyx", "xywh", "cxcywh")
    choice(parameters, "unit", "fraction", "pixel")
    choice(parameters, "code", "xywh", "yxhw")
    variances = parameters.get("variances", VARIANCES)
    if not isinstance(variances, list) or len(variances) != 4 or not all(type(v) in (int, float) for v in variances):
        raise Misfit(f"expected four numbers as variances, found {variances!r}")
    boxes, scores = pair(outputs, {len(labels), len(labels) + 1} if labels else (), parameters)
    if anchors is not None and len(anchors) != boxes.shape[1]:
        raise Misfit(f"expected {boxes.shape[1]} anchors, {len(anchors)} are given")
    if anchors is None and parameters.get("unit", "fraction") == "fraction" and not _fractions(boxes):
        raise Misfit("expected boxes between 0 and 1: they are relative to anchors (name the file), or unit is pixel")
    activation = choice(parameters, "activation", "none", "sigmoid", "softmax")
    if activation == "none" and not probabilities(scores):
        raise Misfit("expected scores from 0 to 1, or activation to be named in output.parameters: sigmoid or softmax")
    background = flag(parameters, "background")
    if background is None:
        background = bool(labels) and scores.shape[2] == len(labels) + 1
    return Plan((boxes.name, scores.name), {**parameters, "activation": activation, "background": background})


def _fractions(boxes: Output) -> bool:
    """Near enough: untrained places may lie a little outside the picture."""
    return all(value.min() >= -1 and value.max() <= 2 for value in boxes.values)


def decode(
    anchors: Array | None,
    outputs: Outputs,
    geometry: Geometry,
    labels: Sequence[str],
    wanted: Wanted,
    parameters: Mapping[str, Any],
) -> list[Detection]:
    """Boxes [1, n, 4] and scores [1, n, classes]; the first class is no object where `background` says so.

    Without anchors the boxes are what `boxes` and `unit` say. With anchors [n, 4] (centre x, centre y, width, height as
    fractions) they are moves of these, in the order of `code`: x = ax + dx * v0 * aw, w = aw * exp(dw * v2).
    """
    places, chances = (np.asarray(value, np.float32)[0] for value in outputs.values())
    check(chances)
    if parameters["activation"] == "softmax":
        chances = np.exp(chances - chances.max(axis=1, keepdims=True))
        chances /= chances.sum(axis=1, keepdims=True)
    elif parameters["activation"] == "sigmoid":
        with np.errstate(over="ignore"):
            chances = 1 / (1 + np.exp(-chances))
    if parameters["background"]:
        chances = chances[:, 1:]
    rows, classes, scores = ranked(chances, wanted.threshold, CANDIDATES)
    if anchors is None:
        boxes = cornered(places[rows], parameters.get("boxes", "xyxy"))
    else:
        boxes = cornered(_moved(anchors[rows], places[rows], parameters), "cxcywh")
    check(boxes)
    if parameters.get("unit", "fraction") == "fraction":
        boxes = boxes * (*geometry.size, *geometry.size)
    kept = suppressed(boxes, scores, wanted.threshold, float(parameters.get("nms", 0.5)), classes)
    names = [label(labels, int(index)) for index in classes[kept]]
    return detections(boxes[kept], scores[kept], names, geometry, None)


def _moved(anchors: Array, moves: Array, parameters: Mapping[str, Any]) -> Array:
    if parameters.get("code", "xywh") == "yxhw":
        moves = moves[:, [1, 0, 3, 2]]
    moves = moves * np.asarray(parameters.get("variances", VARIANCES), np.float32)
    centres = anchors[:, :2] + moves[:, :2] * anchors[:, 2:]
    with np.errstate(over="ignore"):
        return np.concatenate([centres, anchors[:, 2:] * np.exp(moves[:, 2:])], axis=1)
