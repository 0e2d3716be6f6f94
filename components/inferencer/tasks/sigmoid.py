"""Scores of labels that do not exclude each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml.messages import Classification
from inferencer.preprocess import Array, Geometry
from inferencer.tasks.decoding import DecodingRunner, Outputs, Wanted, check, first
from inferencer.tasks.outputs import Misfit, Output, Plan, flag, probabilities
from inferencer.tasks.softmax import CHANCES, best, scores_of

if TYPE_CHECKING:
    import onnxruntime as ort

    from edgeml.bundle import Bundle
    from inferencer.parts import Pipeline
    from inferencer.tasks.runner import Runner


def runner(bundle: Bundle, session: ort.InferenceSession, pipeline: Pipeline) -> Runner:
    return DecodingRunner(bundle, session, pipeline, fit, decode)


def fit(outputs: Sequence[Output], labels: Sequence[str], parameters: Mapping[str, Any]) -> Plan:
    apply = flag(parameters, "apply_sigmoid")
    output, keys = scores_of(outputs, labels)
    if apply is None:
        apply = output.end not in CHANCES
    if not apply and not keys and not probabilities(output):
        raise Misfit("expected scores from 0 to 1")
    return Plan((output.name,), {**parameters, "apply_sigmoid": apply}, keys)


def decode(
    outputs: Outputs, geometry: Geometry, labels: Sequence[str], wanted: Wanted, parameters: Mapping[str, Any]
) -> list[Classification]:
    """Class scores [1, n] to all labels that reach the threshold, best first; `apply_sigmoid: false` if they are
    probabilities already.
    """
    scores: Array = np.asarray(first(outputs), np.float32).reshape(-1)
    check(scores)
    if parameters["apply_sigmoid"]:
        with np.errstate(over="ignore"):
            scores = 1 / (1 + np.exp(-scores))
    return best(scores, labels, wanted)
