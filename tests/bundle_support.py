"""Bundles of tiny models, with whatever is wrong about them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeml import models
from edgeml.errors import BundleError

Shape = list[int | str | None] | None


def made(
    folder: Path,
    shape: Shape = [1, 3, 4, 4],  # noqa: B006
    dtype: int = TensorProto.FLOAT,
    *,
    extra: tuple[str, ...] = (),
    weights: str = "",
    end: str = "Identity",
    **changes: Any,
) -> Path:
    """A bundle of a model that adds a weight to its input, with further inputs, the weight in a file, or an end."""
    folder.mkdir(parents=True, exist_ok=True)
    inputs = [helper.make_tensor_value_info(name, dtype, shape) for name in ("image", *extra)]
    nodes = [helper.make_node("Add", ["image", "weight"], ["sum"]), helper.make_node(end, ["sum"], ["out"])]
    if extra:
        nodes[0] = helper.make_node("Sum", ["image", "weight", *extra], ["sum"])
    weight = numpy_helper.from_array(np.full(64, 2, helper.tensor_dtype_to_np_dtype(dtype))[:1], "weight")
    outputs = [helper.make_tensor_value_info("out", dtype, None)]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, [weight]),
        opset_imports=[helper.make_opsetid("", 14)],
        ir_version=8,
    )
    if weights:
        tensor = model.graph.initializer[0]
        content = tensor.raw_data
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=weights)
        tensor.external_data.add(key="length", value=str(len(content)))
        if "/" not in weights:
            (folder / weights).write_bytes(content)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return described(folder, **changes)


def described(folder: Path, **changes: Any) -> Path:
    manifest = {
        "name": "Double",
        "version": "1.0.0",
        "task": "classification",
        "sha256": models.sha256(folder / "model.onnx"),
        "input": {"name": "image", "size": [4, 4]},
        "output": {"decoder": "softmax"},
        **changes,
    }
    (folder / "model.json").write_text(json.dumps(manifest))
    return folder


def refused(folder: Path) -> str:
    """Why the bundle is refused when it is loaded, opened or tried."""
    with pytest.raises(BundleError) as caught:
        bundle = models.load(folder)
        models.probe(models.open_session(bundle), bundle)
    return str(caught.value)


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


IMAGE: dict[str, Any] = {"name": "image", "size": [4, 4]}
