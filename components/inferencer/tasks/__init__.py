"""What models answer. A decoder is a module here, and one line: its name in model.json, and the module.

A module has `runner(bundle, session, pipeline)`. It is imported with the first bundle that names it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

from edgeml.errors import BundleError

if TYPE_CHECKING:
    import onnxruntime as ort

    from edgeml.bundle import Bundle
    from inferencer.parts import Pipeline
    from inferencer.tasks.runner import Runner

DECODERS = {
    "softmax": "softmax",  # classification: one label of several
    "sigmoid": "sigmoid",  # classification: each label for itself
    "centerface": "centerface",  # detection of faces
    "blazeface": "blazeface",  # detection of faces
    "yolo": "yolo",  # detection: v3, v5, v7, v8, v9, v10, 11 and later
    "yolo_pose": "yolo_pose",  # detection with keypoints
    "yolo_segment": "yolo_segment",  # detection with outlines
    "yolox": "yolox",  # detection
    "ssd": "ssd",  # detection, with anchors or without
    "detr": "detr",  # detection: DETR, RT-DETR, RF-DETR, D-FINE
    "detections": "finished",  # detection: boxes, scores and classes after suppression
    "regression": "regression",  # a number
    "anomaly": "turbine",  # of a wind turbine
}


def runner_of(bundle: Bundle, session: ort.InferenceSession, pipeline: Pipeline) -> Runner:
    """The runner for the decoder that a bundle names. Raises BundleError, also for one that there is not, and where the
    pipeline names labels that the model does not have: what is to be hidden would be shown."""
    named = bundle.manifest.output.decoder
    if named not in DECODERS:
        raise BundleError(f"{bundle.path}: no decoder {named!r}, there are {', '.join(DECODERS)}")
    module = importlib.import_module(f"{__name__}.{DECODERS[named]}")
    runner = cast("Runner", module.runner(bundle, session, pipeline))
    wanted = set(pipeline.privacy.named) if pipeline.privacy is not None else set()
    if missing := wanted - set(runner.bundle.labels):
        there = ", ".join(runner.bundle.labels[:20]) or "none"
        raise BundleError(f"{bundle.path}: privacy names {', '.join(sorted(missing))}, the model's labels are {there}")
    return runner
