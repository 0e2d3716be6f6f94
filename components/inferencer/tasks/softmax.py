"""Class scores to labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml.messages import Classification
from inferencer.preprocess import Array, Geometry
from inferencer.tasks.decoding import DecodingRunner, Outputs, Wanted, check, first, label
from inferencer.tasks.outputs import SLACK, Misfit, Output, Plan, flag, table

if TYPE_CHECKING:
    import onnxruntime as ort

    from edgeml.bundle import Bundle
    from inferencer.parts import Pipeline
    from inferencer.tasks.runner import Runner

MANY = 50  # scores that are soon sorted; of more, the best are found first
CHANCES = frozenset({"Softmax", "Sigmoid", "HardSigmoid"})  # operators whose values are probabilities already


def runner(bundle: Bundle, session: ort.InferenceSession, pipeline: Pipeline) -> Runner:
    return DecodingRunner(bundle, session, pipeline, fit, decode)


def fit(outputs: Sequence[Output], labels: Sequence[str], parameters: Mapping[str, Any]) -> Plan:
    apply = flag(parameters, "apply_softmax")
    output, keys = scores_of(outputs, labels)
    if apply is None:
        apply = not _probabilities(output, keys)
    if apply and _scores(output) == 1:
        raise Misfit(
            "expected two scores or more, or one that ends in Sigmoid, since softmax makes 1.0 of any one score"
        )
    return Plan((output.name,), {**parameters, "apply_softmax": apply}, keys)


def scores_of(outputs: Sequence[Output], labels: Sequence[str]) -> tuple[Output, tuple[Any, ...]]:
    """The output that holds one score for each label, and its keys in the labels' order if it is a map.

    Raises Misfit.
    """
    wanted = len(labels)
    counts = [(output, _scores(output)) for output in outputs]
    fitting = [output for output, count in counts if count and count in (wanted, wanted or count)]
    if not fitting:
        expected = f"expected one score for each of {wanted} labels" if wanted else "expected [1, n] scores"
        raise Misfit(expected + _almost([count for _, count in counts], wanted))
    return fitting[0], () if fitting[0].kind.startswith("tensor") else _keys(fitting[0], labels)


def _scores(output: Output) -> int:
    """How many class scores an output holds for one sample; 0 if it holds anything else."""
    if output.kind.startswith("seq(map("):
        return len(output.values[0][0]) if len(output.values[0]) == 1 else 0
    shape = output.shape
    numbers = output.floats or output.kind in ("tensor(uint8)", "tensor(int8)")
    flat = sum(side != 1 for side in shape) <= 1 and (len(shape) < 2 or shape[0] == 1)
    return math.prod(shape) if numbers and flat else 0


def _almost(counts: Sequence[int], wanted: int) -> str:
    for count in filter(None, counts):
        if wanted and count == wanted + 1:
            return f", found {count}, one more: a background class, which has to stand first among the labels?"
        if wanted:
            return f", found {count}"
    return ""


def _keys(output: Output, labels: Sequence[str]) -> tuple[Any, ...]:
    """The keys of a map of scores in the labels' order: by name if they are names, else by their own order."""
    found = sorted(output.values[0][0])
    if not found or not isinstance(found[0], str):
        return tuple(found)
    if set(found) != set(labels):
        raise Misfit(f"expected scores of the labels, found those of {', '.join(found)[:80]}")
    return tuple(labels)


def _probabilities(output: Output, keys: Sequence[Any]) -> bool:
    """Whether the scores are probabilities: by the operator that ends the graph, or because they look like it."""
    if output.end in CHANCES and output.floats:
        return True
    rows = [np.asarray(table(value, keys), np.float64).reshape(-1) for value in output.values]
    return all(
        row.size > 1 and row.min() >= -SLACK and row.max() <= 1 + SLACK and abs(row.sum() - 1) < 10 * SLACK
        for row in rows
    )


def decode(
    outputs: Outputs, geometry: Geometry, labels: Sequence[str], wanted: Wanted, parameters: Mapping[str, Any]
) -> list[Classification]:
    """Class scores [1, n] to the best labels, best first; `apply_softmax: false` if they are probabilities already."""
    scores = np.asarray(first(outputs), np.float32).reshape(-1)
    check(scores)
    if not parameters.get("apply_softmax", True):
        return best(scores, labels, wanted)
    chances = np.exp(scores - np.maximum.reduce(scores))
    return best(chances, labels, wanted, float(np.add.reduce(chances)))


def best(scores: Array, labels: Sequence[str], wanted: Wanted, whole: float = 1.0) -> list[Classification]:
    """The labels whose shares of `whole` reach the threshold, best first, at most `top_k`."""
    found = (scores >= wanted.threshold * whole).nonzero()[0]
    if not found.size:
        return []
    if found.size > max(MANY, wanted.top_k):
        found = (scores >= np.partition(scores, -wanted.top_k)[-wanted.top_k]).nonzero()[0]
    order = sorted(zip(scores[found].tolist(), found.tolist(), strict=True), reverse=True)[: wanted.top_k]
    return [Classification(label(labels, index), round(score / whole, 6)) for score, index in order]
