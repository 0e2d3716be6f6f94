"""A number."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml.messages import Regression
from inferencer.preprocess import Geometry
from inferencer.tasks.decoding import DecodingRunner, Outputs, Wanted, check, first
from inferencer.tasks.outputs import Misfit, Output, Plan

if TYPE_CHECKING:
    import onnxruntime as ort

    from edgeml.bundle import Bundle
    from inferencer.parts import Pipeline
    from inferencer.tasks.runner import Runner


def runner(bundle: Bundle, session: ort.InferenceSession, pipeline: Pipeline) -> Runner:
    return DecodingRunner(bundle, session, pipeline, fit, decode)


def fit(outputs: Sequence[Output], labels: Sequence[str], parameters: Mapping[str, Any]) -> Plan:
    numeric = ("tensor(int64)", "tensor(int32)")
    single = [output for output in outputs if output.kind.startswith("tensor") and math.prod(output.shape) == 1]
    floats, integers = [o for o in single if o.floats], [o for o in single if o.kind in numeric]
    if not (floats or integers):
        raise Misfit("expected one number")
    return Plan(((floats or integers)[0].name,), parameters)


def decode(
    outputs: Outputs, geometry: Geometry, labels: Sequence[str], wanted: Wanted, parameters: Mapping[str, Any]
) -> Regression:
    """The first output's only number."""
    value = float(np.asarray(first(outputs)).reshape(-1)[0])
    check(value)
    return Regression(value)
