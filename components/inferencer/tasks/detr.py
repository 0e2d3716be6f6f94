"""Boxes by the DETR family: DETR, RT-DETR, RF-DETR, D-FINE."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml.messages import Detection
from inferencer.preprocess import Geometry
from inferencer.tasks.boxes import choice, cornered, detections, pair, ranked
from inferencer.tasks.decoding import DecodingRunner, Outputs, Wanted, check, label
from inferencer.tasks.outputs import Misfit, Output, Plan, probabilities

if TYPE_CHECKING:
    import onnxruntime as ort

    from edgeml.bundle import Bundle
    from inferencer.parts import Pipeline
    from inferencer.tasks.runner import Runner


def runner(bundle: Bundle, session: ort.InferenceSession, pipeline: Pipeline) -> Runner:
    return DecodingRunner(bundle, session, pipeline, fit, decode)


def fit(outputs: Sequence[Output], labels: Sequence[str], parameters: Mapping[str, Any]) -> Plan:
    boxes, logits = pair(outputs, {len(labels), len(labels) + 1} if labels else (), parameters)
    if not probabilities(boxes):
        raise Misfit(f"expected boxes as fractions of the picture in {boxes.name}")
    classes = logits.shape[2]
    activation = choice(parameters, "activation", "auto", "sigmoid", "softmax")
    if activation == "auto":
        if not labels:
            raise Misfit(
                "expected activation to be named in output.parameters: sigmoid or softmax, as there are no labels"
            )
        activation = "softmax" if classes == len(labels) + 1 else "sigmoid"
    return Plan((logits.name, boxes.name), {**parameters, "activation": activation})


def decode(
    outputs: Outputs, geometry: Geometry, labels: Sequence[str], wanted: Wanted, parameters: Mapping[str, Any]
) -> list[Detection]:
    """Logits [1, n, classes] and boxes [1, n, 4]: centre x, centre y, width, height as fractions of the input.

    `activation` softmax (DETR): the last class is nothing, each query has one class. sigmoid (all others): each pair
    of query and class stands for itself, the best first. There is no suppression: the model has learnt it.
    """
    logits, boxes = (np.asarray(value, np.float32)[0] for value in outputs.values())
    check(logits)
    if parameters["activation"] == "softmax":
        chances = np.exp(logits - logits.max(axis=1, keepdims=True))
        chances = (chances / chances.sum(axis=1, keepdims=True))[:, :-1]
        chances = np.where(chances == chances.max(axis=1, keepdims=True), chances, 0)
    else:
        with np.errstate(over="ignore"):
            chances = 1 / (1 + np.exp(-logits))
    places, classes, scores = ranked(chances, wanted.threshold)
    found = cornered(boxes[places], "cxcywh") * (*geometry.size, *geometry.size)
    check(found)
    return detections(found, scores, [label(labels, int(index)) for index in classes], geometry, None)
