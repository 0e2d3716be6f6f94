"""Inputs of models that are not one float32 tensor, and the labels that a model brings itself."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeml.errors import BackendError, BundleError
from fitting_support import IMAGE, REGRESSION, SOFTMAX, VECTOR, answered, exported, floats, opened, save
from inferencer_support import describe, picture

KINDS = {
    "float16": TensorProto.FLOAT16,
    "float64": TensorProto.DOUBLE,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
    "int32": TensorProto.INT32,
    "int64": TensorProto.INT64,
}


def mean(folder: Path, dtype: str, declared: dict[str, Any]) -> Path:
    """A regression that gives the mean of its input."""
    folder.mkdir()
    shape = [1, *declared["shape"]] if "shape" in declared else [1, 3, 8, 8]
    nodes = [
        helper.make_node("Cast", ["input"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["mean"], keepdims=0),
    ]
    out = [helper.make_tensor_value_info("mean", TensorProto.FLOAT, [])]
    save(helper.make_graph(nodes, "g", [helper.make_tensor_value_info("input", KINDS[dtype], shape)], out), folder)
    return describe(folder, "1.0.0", {**REGRESSION, "input": {**declared, "dtype": dtype}})


@pytest.mark.parametrize("dtype", ["float16", "float64", "uint8", "int32", "int64"])
def test_pixels_come_as_the_type_of_the_input(tmp_path: Path, dtype: str) -> None:
    assert answered(mean(tmp_path / "b", dtype, IMAGE), picture(9, 9, 9)).value == 9


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_whole_numbers_are_rounded_and_not_cut_off(tmp_path: Path, dtype: str) -> None:
    folder = mean(tmp_path / "b", dtype, {**IMAGE, "scale": 1.6})
    assert answered(folder, picture(1, 1, 1)).value == 2


@pytest.mark.parametrize("dtype", KINDS)
def test_numbers_come_as_the_type_of_the_input(tmp_path: Path, dtype: str) -> None:
    assert answered(mean(tmp_path / "b", dtype, VECTOR), [1, 2, 3, 6]).value == 3


@pytest.mark.parametrize(
    ("dtype", "value", "fits"),
    [
        ("uint8", -1, False),
        ("uint8", 0, True),
        ("uint8", 255, True),
        ("uint8", 256, False),
        ("int8", -129, False),
        ("int8", -128, True),
        ("int32", 2**31 - 1, True),
        ("int32", 2**31, False),
        ("int64", 2**53, True),
        ("int64", 2**53 + 2, False),
        ("int64", -(2**53) - 2, False),
        ("float16", 65504, True),
        ("float16", 65520, False),
    ],
)
def test_numbers_that_the_type_does_not_hold_are_refused(tmp_path: Path, dtype: str, value: float, fits: bool) -> None:
    folder = mean(tmp_path / "b", dtype, VECTOR)
    if fits:
        assert answered(folder, [value] * 4) is not None
        return
    with pytest.raises(BackendError, match="expected"):
        answered(folder, [value] * 4)


# --- further inputs ---


def second(folder: Path, extra: dict[str, Any] | None, kind: int = TensorProto.INT64, count: int = 2) -> Path:
    """A regression that gives 1000 a + b of its second input [1, 2], which model.json describes as `extra`."""
    folder.mkdir()
    weights = numpy_helper.from_array(np.array([1000.0, 1.0, *[0.0] * (count - 2)], np.float32), "weights")
    nodes = [
        helper.make_node("Identity", ["input"], ["unused"]),
        helper.make_node("Cast", ["size"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["floats", "weights"], ["sum"]),
    ]
    taken = [
        helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 8, 8]),
        helper.make_tensor_value_info("size", kind, [1, count]),
    ]
    out = [helper.make_tensor_value_info("sum", TensorProto.FLOAT, [1])]
    save(helper.make_graph(nodes, "g", taken, out, [weights]), folder)
    extras = {"extra_inputs": {"size": extra}} if extra is not None else {}
    return describe(folder, "1.0.0", {**REGRESSION, "input": IMAGE, **extras})


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({"of": "source"}, 24_016),  # a picture 24 high and 16 wide, in an input of 8 x 8
        ({"of": "source", "order": "wh"}, 16_024),
        ({"of": "input"}, 8_008),
        ({"values": [3, 4]}, 3_004),
        ({"values": [3, 4], "shape": [1, 2]}, 3_004),
    ],
)
def test_a_further_input_gets_what_model_json_says(tmp_path: Path, extra: dict[str, Any], expected: float) -> None:
    assert answered(second(tmp_path / "b", extra), picture(size=(24, 16))).value == expected


def test_a_scale_is_that_of_the_picture(tmp_path: Path) -> None:
    folder = second(tmp_path / "b", {"of": "scale", "dtype": "float32"}, TensorProto.FLOAT)
    assert answered(folder, picture(size=(24, 16))).value == pytest.approx(8 / 24 * 1000 + 8 / 16, rel=1e-5)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (None, "2 inputs, input, size; extra_inputs.size in model.json has to say what that gets"),
        ({"values": [1, 2, 3]}, "model.json says"),
        ({"values": [1, 2], "shape": [3]}, "extra_inputs.size"),
        ({"values": [1, 2], "dtype": "int32"}, "input size is tensor(int64) [1, 2], model.json says int32"),
        ({"values": [0.5, 1]}, "extra_inputs.size: expected what int64 holds, found [0.5, 1.0]"),
        ({"values": [300, 1], "dtype": "uint8"}, "extra_inputs.size: expected what uint8 holds"),
        ({"of": "moon"}, "Invalid enum value 'moon'"),
    ],
)
def test_a_further_input_that_does_not_fit_is_refused(tmp_path: Path, extra: dict[str, Any] | None, words: str) -> None:
    with pytest.raises(BundleError) as caught:
        opened(second(tmp_path / "b", extra))
    assert words in str(caught.value)


def test_a_further_input_that_the_model_has_not_is_refused(tmp_path: Path) -> None:
    folder = exported(tmp_path / "b", {"o": floats(1, 3)}, extra_inputs={"size": {"of": "source"}}, **SOFTMAX)
    with pytest.raises(BundleError, match=r"no input 'size' \(extra_inputs\), it has input"):
        opened(folder)


# --- labels in the model ---


def named(folder: Path, text: str, **declared: Any) -> Path:
    path = exported(folder, {"o": np.array([[0.0, 9, 0]], np.float32)}, **{"labels": [], **SOFTMAX, **declared})
    model = onnx.load(path / "model.onnx")
    model.metadata_props.add(key="names", value=text)
    onnx.save(model, path / "model.onnx")
    return describe(path, "1.0.0", {"task": "classification", "input": IMAGE, "labels": [], **SOFTMAX, **declared})


@pytest.mark.parametrize(
    "text", ["{0: 'bolt', 1: 'nut', 2: 'x'}", '{"0": "bolt", "1": "nut", "2": "x"}', '["bolt", "nut", "x"]']
)
def test_labels_come_from_the_model_where_the_bundle_has_none(tmp_path: Path, text: str) -> None:
    (found,) = answered(named(tmp_path / "b", text))
    assert found.label == "nut"


def test_labels_of_the_bundle_come_first(tmp_path: Path) -> None:
    (found,) = answered(named(tmp_path / "b", "['bolt', 'nut', 'x']", labels=["a", "b", "c"]))
    assert found.label == "b"


@pytest.mark.parametrize(
    "text", ["", "bolt", "{0: 'bolt', 2: 'x'}", "[1, 2, 3]", "__import__('os')", "(" * 60_000, "['a'] * 99", "7"]
)
def test_names_that_are_none_are_passed_over(tmp_path: Path, text: str) -> None:
    (found,) = answered(named(tmp_path / "b", text))
    assert found.label == "1"
