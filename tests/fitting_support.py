"""Models that give what they are told, whatever they see, and what the Inferencer makes of them."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgeml import models
from edgeml.errors import BackendError, BundleError
from inferencer.backends.onnx import OnnxBackend
from inferencer.sources.camera import CameraSource
from inferencer.tasks import runner_of
from inferencer.tasks.runner import Runner
from inferencer_support import describe, picture, pipeline, sample

IMAGE: dict[str, Any] = {"name": "input", "size": [8, 8], "color": "bgr"}
VECTOR: dict[str, Any] = {"name": "input", "layout": "tensor", "shape": [4]}
LABELS = ["a", "b", "c"]
Outputs = dict[str, Any]


def exported(
    folder: Path, outputs: Outputs, end: str = "", files: Mapping[str, Any] = MappingProxyType({}), **declared: Any
) -> Path:
    """A bundle of a model that gives these arrays whatever it sees; `end` is an operator behind each.

    `files` are arrays that the bundle has besides.
    """
    folder.mkdir(parents=True, exist_ok=True)
    taken = declared.setdefault("input", IMAGE)
    shape = [1, *taken["shape"]] if "shape" in taken else [1, 3, *reversed(taken["size"])]
    nodes, constants, results = [], [], []
    for name, value in outputs.items():
        constants.append(numpy_helper.from_array(np.asarray(value), f"{name}_value"))
        nodes.append(helper.make_node(end or "Identity", [f"{name}_value"], [name]))
        results.append(helper.make_tensor_value_info(name, constants[-1].data_type, None))
    nodes.append(helper.make_node("Identity", ["input"], ["unused"]))
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("input", 1, shape)], results, constants)
    save(graph, folder)
    for name, value in files.items():
        np.save(folder / name, value)
    if files:
        declared["files"] = {name: models.sha256(folder / name) for name in files}
    return describe(folder, "1.0.0", {"task": "classification", "labels": LABELS, **declared})


def save(graph: onnx.GraphProto, folder: Path, opset: int = 17) -> None:
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    (folder / "model.onnx").write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    )


def opened(folder: Path, **settings: Any) -> Runner:
    bundle = models.load(folder)
    session = models.open_session(bundle, threads=1)
    models.probe(session, bundle)
    backend = OnnxBackend(model="Tiny")
    runner = runner_of(bundle, session, pipeline(backend, CameraSource(camera="c"), **settings))
    runner.rehearse()
    return runner


def answered(folder: Path, data: Any = None, **settings: Any) -> Any:
    outcome = opened(folder, **settings).infer(sample(picture(blue=9) if data is None else data))
    assert outcome is not None
    return outcome.results


def assert_refused(folder: Path, outputs: Outputs, declared: dict[str, Any], words: str) -> None:
    """A bundle of these outputs is refused in one sentence that has these words in it."""
    with pytest.raises((BundleError, BackendError)) as caught:
        opened(exported(folder, outputs, **declared))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def floats(*shape: int, value: float = 0.5) -> Any:
    return np.full(shape, value, np.float32)


SOFTMAX: dict[str, Any] = {"output": {"decoder": "softmax"}}
YOLO: dict[str, Any] = {"output": {"decoder": "yolo"}, "task": "detection"}
REGRESSION: dict[str, Any] = {"output": {"decoder": "regression"}, "task": "regression", "labels": []}
FACES: dict[str, Any] = {"output": {"decoder": "centerface"}, "task": "detection", "labels": ["face"]}
FACE = {"heatmap": floats(1, 1, 2, 2), "scale": floats(1, 2, 2, 2), "offset": floats(1, 2, 2, 2)}
TEXTS = np.array([["a", "b"]], object)


def v8(**parameters: Any) -> dict[str, Any]:
    return {**YOLO, "output": {"decoder": "yolo", "parameters": parameters}}
