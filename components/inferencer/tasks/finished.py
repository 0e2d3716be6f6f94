"""Boxes that the model itself has chosen and suppressed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml.messages import Detection
from inferencer.preprocess import Geometry
from inferencer.sample import MAX_BOXES
from inferencer.tasks.boxes import choice, cornered, detections
from inferencer.tasks.decoding import DecodingRunner, Outputs, Wanted, check, first, label
from inferencer.tasks.outputs import Misfit, Output, Plan, probabilities

if TYPE_CHECKING:
    import onnxruntime as ort

    from edgeml.bundle import Bundle
    from inferencer.parts import Pipeline
    from inferencer.tasks.runner import Runner

INTEGERS = ("tensor(int64)", "tensor(int32)")


def runner(bundle: Bundle, session: ort.InferenceSession, pipeline: Pipeline) -> Runner:
    return DecodingRunner(bundle, session, pipeline, fit, decode)


def fit(outputs: Sequence[Output], labels: Sequence[str], parameters: Mapping[str, Any]) -> Plan:
    choice(parameters, "boxes", "xyxy", "yxyx", "xywh", "cxcywh")
    choice(parameters, "unit", "pixel", "fraction", "source")
    lowest = parameters.get("first_class", 0)
    if type(lowest) is not int:
        raise Misfit(f"expected a whole number as first_class, found {lowest!r}")
    tables = [output for output in outputs if output.floats and len(output.shape) == 3 and output.shape[2] == 6]
    if tables:
        return Plan((_one("rows [1, n, 6]", tables).name,), parameters)
    batch = any(len(output.shape) == 3 for output in outputs)  # torchvision's models give none
    boxes = _one("boxes [1, n, 4]", [o for o in outputs if o.floats and len(o.shape) == 2 + batch and o.shape[-1] == 4])
    columns = [output for output in outputs if len(output.shape) == 1 + batch]
    numbers = [output for output in columns if output.kind in INTEGERS or _called(output, "class", "label")]
    scores = [output for output in columns if output.floats and output not in numbers]
    if len(scores) > 1:
        scores = [output for output in scores if _called(output, "score", "conf")]
    chosen = boxes, _one("scores [1, n]", scores), _one("classes [1, n]", numbers)
    if not probabilities(chosen[1]):
        raise Misfit(f"expected scores from 0 to 1 in {chosen[1].name}")
    filled = any(np.any(value) for value in boxes.values)
    if "unit" not in parameters and filled and probabilities(boxes):
        raise Misfit("expected unit to be named in output.parameters, fraction or pixel: all boxes lie between 0 and 1")
    return Plan(tuple(output.name for output in chosen), parameters)


def _one(what: str, found: Sequence[Output]) -> Output:
    if len(found) != 1:
        raise Misfit(f"expected one output of {what}, found {len(found)}")
    return found[0]


def _called(output: Output, *words: str) -> bool:
    return any(word in output.name.lower() for word in words)


def decode(
    outputs: Outputs, geometry: Geometry, labels: Sequence[str], wanted: Wanted, parameters: Mapping[str, Any]
) -> list[Detection]:
    """Boxes [1, n, 4], scores [1, n] and classes [1, n], with or without the batch, or one table of them [1, n, 6].

    `boxes` says what the four numbers are, `unit` of what: pixels of the model's input, fractions of it, or pixels of
    the source, where the model was told of its size. `first_class` is the class of the first label.
    """
    if len(outputs) == 1:
        rows = np.asarray(first(outputs))[0]
        boxes, scores, classes = rows[:, :4], rows[:, 4], rows[:, 5]
    else:
        boxes, scores, classes = (np.asarray(value) for value in outputs.values())
    boxes, scores, classes = boxes.reshape(-1, 4).astype(np.float32), scores.reshape(-1), classes.reshape(-1)
    check(scores)
    sure = np.flatnonzero(scores > wanted.threshold)
    best = sure[np.argsort(-scores[sure], kind="stable")][:MAX_BOXES]
    found = cornered(boxes[best], parameters.get("boxes", "xyxy"))
    check(found)
    check(classes[best])
    unit = parameters.get("unit", "pixel")
    if unit == "fraction":
        found = found * (*geometry.size, *geometry.size)
    if unit == "source":
        geometry = Geometry(geometry.width, geometry.height)
    numbers = classes[best].astype(np.intp) - parameters.get("first_class", 0)
    return detections(found, scores[best], [label(labels, int(number)) for number in numbers], geometry, None)
