"""Boxes by the YOLO family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgeml.messages import Detection
from inferencer.preprocess import Geometry
from inferencer.tasks.boxes import detections, number
from inferencer.tasks.decoding import DecodingRunner, Outputs, Wanted, first, label
from inferencer.tasks.outputs import Misfit, Output, Plan
from inferencer.tasks.yolo_rows import NMS, layout_of, rows

if TYPE_CHECKING:
    import onnxruntime as ort

    from edgeml.bundle import Bundle
    from inferencer.parts import Pipeline
    from inferencer.tasks.runner import Runner


def runner(bundle: Bundle, session: ort.InferenceSession, pipeline: Pipeline) -> Runner:
    return DecodingRunner(bundle, session, pipeline, fit, decode)


def fit(outputs: Sequence[Output], labels: Sequence[str], parameters: Mapping[str, Any]) -> Plan:
    number(parameters, "nms", 0, 1)
    if len(outputs) > 1 and any(len(output.shape) == 4 for output in outputs):
        raise Misfit("expected boxes alone, this is a segmentation model: decoder yolo_segment")
    output, layout = layout_of(outputs, len(labels), parameters.get("layout"))
    return Plan((output.name,), {**parameters, "layout": layout})


def decode(
    outputs: Outputs, geometry: Geometry, labels: Sequence[str], wanted: Wanted, parameters: Mapping[str, Any]
) -> list[Detection]:
    """Boxes of one table, read as `rows` says; `layout` in model.json where several fit: "v5", "v8" or "v10"."""
    layout, nms = parameters.get("layout", "v5"), float(parameters.get("nms", NMS))
    found = rows(first(outputs), layout, 0, wanted.threshold, nms)
    names = [label(labels, int(index)) for index in found.classes]
    return detections(found.boxes, found.scores, names, geometry, None)
