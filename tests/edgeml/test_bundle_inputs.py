"""Inputs of models and what model.json says of them: what does not fit is told."""

from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto

from bundle_support import IMAGE, made, refused
from edgeml import models

INPUTS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "NHWC for NCHW": ({"shape": [1, 4, 4, 3]}, IMAGE, "[1, 4, 4, 3], which is NHWC"),
    "NCHW for NHWC": ({}, {**IMAGE, "layout": "NHWC"}, "[1, 3, 4, 4], which is NCHW"),
    "batch of four": ({"shape": [4, 3, 4, 4]}, IMAGE, "a batch of 4 where samples come one at a time"),
    "another size": ({}, {**IMAGE, "size": [5, 4]}, "does not run on (1, 3, 4, 5) NCHW"),
    "grey": ({}, {**IMAGE, "color": "gray"}, "does not run on (1, 1, 4, 4)"),
    "a vector": ({}, {"name": "image", "layout": "tensor", "shape": [48]}, "does not run on (1, 48), as model.json"),
    "float16": ({"dtype": TensorProto.FLOAT16}, IMAGE, "tensor(float16) [1, 3, 4, 4], model.json says float32"),
    "uint8": ({"dtype": TensorProto.INT32}, {**IMAGE, "dtype": "uint8"}, "tensor(int32) [1, 3, 4, 4], model.json says"),
    "two inputs": ({"extra": ("size",)}, IMAGE, "it has 2 inputs, image, size; extra_inputs.size in model.json"),
    "a size beyond sense": ({"shape": [1, 3, "h", "w"]}, {**IMAGE, "size": [16384, 16384]}, "numbers, 268435456"),
    "a size beyond the format": ({}, {**IMAGE, "size": [99999, 4]}, "<= 16384"),
    "a negative shape": ({}, {"name": "image", "layout": "tensor", "shape": [-1]}, ">= 1"),
}  # fmt: skip


@pytest.mark.parametrize("fault", INPUTS)
def test_an_input_that_does_not_fit_says_what_is_there_and_what_was_expected(tmp_path: Path, fault: str) -> None:
    model, declared, words = INPUTS[fault]
    assert words in refused(made(tmp_path / "b", **model, input=declared))


@pytest.mark.parametrize(
    ("model", "declared"),
    [
        ({"shape": ["n", 3, "h", "w"]}, {"name": "image"}),
        ({"shape": [None, 3, None, None]}, IMAGE),
        ({"shape": ["n", 4, 4, 1]}, {**IMAGE, "layout": "NHWC", "color": "gray"}),
        ({"shape": None}, IMAGE),
        ({"shape": ["n", 7]}, {"name": "image", "layout": "tensor", "shape": [7]}),
        ({"dtype": TensorProto.FLOAT16}, {**IMAGE, "dtype": "float16"}),
    ],
)
def test_dynamic_inputs_and_half_precision_load(
    tmp_path: Path, model: dict[str, Any], declared: dict[str, Any]
) -> None:
    bundle = models.load(made(tmp_path / "b", **model, input=declared))
    models.probe(models.open_session(bundle), bundle)
