"""Models whose outputs do not fit what model.json says of them: as people export them, run by ONNX Runtime."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeml.component import Context
from edgeml.errors import BackendError
from fitting_support import (
    FACE,
    FACES,
    IMAGE,
    LABELS,
    REGRESSION,
    SOFTMAX,
    TEXTS,
    VECTOR,
    YOLO,
    Outputs,
    answered,
    assert_refused,
    exported,
    floats,
    opened,
    save,
)
from inferencer.backends.onnx import OnnxBackend, OnnxModel
from inferencer.sources.camera import CameraSource
from inferencer_support import describe, make_context, pipeline, sample
from support import eventually

MISFITS: dict[str, tuple[Outputs, dict[str, Any], str]] = {
    "labels without scores": (
        {"output_label": np.array([1], np.int64)},
        SOFTMAX,
        "expected one score for each of 3 labels; there is output_label int64 [1]",
    ),
    "a text recogniser": ({"t": floats(1, 40, 99)}, SOFTMAX, "for each of 3 labels; there is t float [1, 40, 99]"),
    "texts without labels": ({"t": floats(1, 40, 99)}, {**SOFTMAX, "labels": []}, "expected [1, n] scores"),
    "a background class": ({"scores": floats(1, 4)}, SOFTMAX, "found 4, one more: a background class"),
    "too few": ({"scores": floats(1, 2)}, SOFTMAX, "for each of 3 labels, found 2; there is scores float [1, 2]"),
    "a batch": ({"scores": floats(3, 1)}, SOFTMAX, "for each of 3 labels"),
    "one score": ({"scores": floats(1, 1, value=-3)}, {**SOFTMAX, "labels": ["a"]}, "softmax makes 1.0 of any one"),
    "one score without labels": ({"scores": floats(1, 1)}, {**SOFTMAX, "labels": []}, "two scores or more"),
    "nothing": ({"scores": floats(1, 0)}, {**SOFTMAX, "labels": []}, "there is scores float [1, 0]"),
    "words": ({"scores": TEXTS}, {**SOFTMAX, "labels": ["a", "b"]}, "there is scores string [1, 2]"),
    "another name": (
        {"scores": floats(1, 3)},
        {"output": {"decoder": "softmax", "name": "logits"}},
        "expected an output 'logits', as output.name says; there is scores float [1, 3]",
    ),
    "softmax by words": (
        {"scores": floats(1, 3)},
        {"output": {"decoder": "softmax", "parameters": {"apply_softmax": "false"}}},
        "expected true or false as apply_softmax, found 'false'",
    ),
    "several numbers": ({"out": floats(1, 3)}, REGRESSION, "expected one number; there is out float [1, 3]"),
    "no numbers": ({"out": np.array([["a"]], object)}, REGRESSION, "there is out string [1, 1]"),
    "an empty one": ({"out": floats(1, 0)}, REGRESSION, "there is out float [1, 0]"),
    "no landmarks": (FACE, FACES, "landmarks [1, 10, h, w]; there is heatmap float [1, 1, 2, 2]"),
    "sizes that differ": ({**FACE, "landmarks": floats(1, 10, 4, 4)}, FACES, "expected heatmap [1, 1, h, w], scale"),
    "a vector under a turbine's decoder": (
        {"o": floats(1, 4)},
        {"input": VECTOR, "output": {"decoder": "anomaly"}, "task": "anomaly", "thresholds": {"mae": [1] * 6}},
        "input.shape must be [6, 10, 10], found [4]",
    ),
    "features that are too few": (
        {"o": floats(1, 1)},
        {"input": VECTOR, "output": {"decoder": "regression", "parameters": {"features": ["a"]}}, "task": "regression"},
        "1 features are named, the input takes 4",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", MISFITS)
def test_outputs_that_do_not_fit_are_refused_in_one_sentence(tmp_path: Path, fault: str) -> None:
    assert_refused(tmp_path / "b", *MISFITS[fault])


FITS: dict[str, tuple[Outputs, dict[str, Any]]] = {
    "the first of two that fit": ({"main": [[0.0, 9, 0]], "other": [[9.0, 0, 0]]}, SOFTMAX),
    "the only one that fits": ({"features": np.zeros((1, 512)), "scores": [[0.0, 9, 0]]}, SOFTMAX),
    "after the label": ({"output_label": np.array([2]), "output_probability": [[0.1, 0.8, 0.1]]}, SOFTMAX),
    "by name": (
        {"a": [[9.0, 0, 0]], "b": [[0.0, 9, 0]]},
        {"output": {"decoder": "softmax", "name": "b"}},
    ),
    "as a map of one pixel": ({"scores": np.array([0, 9, 0], float).reshape(1, 3, 1, 1)}, SOFTMAX),
    "in half precision": ({"scores": np.array([[0, 9, 0]], np.float16)}, SOFTMAX),
    "in double precision": ({"scores": np.array([[0, 9, 0]], np.float64)}, SOFTMAX),
    "without a batch": ({"scores": np.array([0.0, 9, 0])}, SOFTMAX),
    "quantized": ({"scores": np.array([[0, 90, 0]], np.uint8)}, SOFTMAX),
}


@pytest.mark.parametrize("case", FITS)
def test_the_output_is_chosen_by_name_type_and_shape(tmp_path: Path, case: str) -> None:
    outputs, declared = FITS[case]
    typed = {name: np.asarray(v, np.float32) if isinstance(v, list) else np.asarray(v) for name, v in outputs.items()}
    assert answered(exported(tmp_path / "b", typed, **declared))[0].label == "b"


@pytest.mark.parametrize(
    ("values", "end", "parameters", "score"),
    [
        ([1.0, 2, 4], "", {}, 0.8438),  # scores
        ([1.0, 2, 4], "Softmax", {}, 0.8438),  # no second one
        ([0.1, 0.2, 0.7], "", {}, 0.7),  # probabilities by their values
        ([0.1, 0.2, 0.7], "", {"apply_softmax": True}, 0.4640),  # asked for
        ([0.1, 0.2, 0.7], "Sigmoid", {}, 0.6682),  # of several labels at once
        ([1.0, 2, 4], "LogSoftmax", {}, 0.8438),
        ([1.0, 2, 4], "Sigmoid", {"apply_softmax": False}, 0.9820),
        ([0.5, 0.5, 0.5], "", {}, 0.3333),  # from 0 to 1, and no probabilities together
    ],
)
def test_probabilities_are_not_made_twice(
    tmp_path: Path, values: list[float], end: str, parameters: dict[str, Any], score: float
) -> None:
    output = {"decoder": "softmax", "parameters": parameters}
    found = answered(exported(tmp_path / "b", {"s": np.array([values], np.float32)}, end, output=output))
    assert found[0].score == pytest.approx(score, abs=1e-4)


@pytest.mark.parametrize("floats_again", [True, False])
def test_the_softmax_of_a_quantized_model_is_seen_too(tmp_path: Path, floats_again: bool) -> None:
    """Rounded to 8 bits, many small probabilities are 0 and the sum is far from 1."""
    labels = [f"l{number}" for number in range(200)]
    constants = [
        numpy_helper.from_array(np.array([[6.0] + [0.0] * 199], np.float32), "raw"),
        numpy_helper.from_array(np.array(1 / 128, np.float32), "step"),
        numpy_helper.from_array(np.array(0, np.uint8), "zero"),
    ]
    nodes = [helper.make_node("Identity", ["input"], ["unused"]), helper.make_node("Softmax", ["raw"], ["soft"])]
    nodes.append(helper.make_node("QuantizeLinear", ["soft", "step", "zero"], ["bytes"]))
    nodes.append(helper.make_node("DequantizeLinear", ["bytes", "step", "zero"], ["scores"]))
    name, kind = ("scores", TensorProto.FLOAT) if floats_again else ("bytes", TensorProto.UINT8)
    taken, given = (helper.make_tensor_value_info(n, k, None) for n, k in (("input", 1), (name, kind)))
    taken.type.tensor_type.shape.dim.extend(helper.make_tensor_type_proto(1, [1, 3, 8, 8]).tensor_type.shape.dim)
    save(helper.make_graph(nodes, "g", [taken], [given], constants), tmp_path)
    found = answered(
        describe(tmp_path, "1.0.0", {"input": IMAGE, "labels": labels, **SOFTMAX, "task": "classification"})
    )
    assert found[0].label == "l0"
    assert found[0].score == (pytest.approx(0.6719, abs=1e-4) if floats_again else pytest.approx(1.0))


# --- answers that are no numbers ---


def unsure(folder: Path, decoder: dict[str, Any], shape: list[int]) -> Path:
    """Divides its input by the sum of its input and four: finite but for one input."""
    folder.mkdir()
    nodes = [
        helper.make_node("ReduceSum", ["input"], ["sum"], keepdims=0),
        helper.make_node("Div", ["sum", "sum"], ["one"]),
        helper.make_node("Sub", ["one", "one"], ["zero"]),
        helper.make_node("Expand", ["zero", "shape"], ["out"]),
    ]
    nodes[0] = helper.make_node("Add", ["input", "four"], ["moved"])
    nodes.insert(1, helper.make_node("ReduceSum", ["moved"], ["sum"], keepdims=0))
    constants = [
        numpy_helper.from_array(np.array(4, np.float32), "four"),
        numpy_helper.from_array(np.array(shape, np.int64), "shape"),
    ]
    given = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 4])]
    out = [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)]
    save(helper.make_graph(nodes, "g", given, out, constants), folder)
    return describe(folder, "1.0.0", {"labels": LABELS, "input": VECTOR, **decoder})


@pytest.mark.parametrize(
    ("decoder", "shape"),
    [({**SOFTMAX, "task": "classification"}, [1, 3]), (REGRESSION, [1, 1]), (YOLO, [1, 7, 50]), (YOLO, [1, 50, 8])],
)
def test_an_answer_that_is_not_finite_is_an_error_and_no_empty_result(
    tmp_path: Path, decoder: dict[str, Any], shape: list[int]
) -> None:
    runner = opened(unsure(tmp_path / "b", decoder, shape))
    assert runner.infer(sample([1, 2, 3, 4])) is not None
    with pytest.raises(BackendError, match="not finite"):
        runner.infer(sample([-4, -4, -4, -4]))  # 0 / 0


@pytest.mark.parametrize(
    "value", ["nan", "inf", float("nan"), 1e300, 10**400, "1_000", "１２", "٣", "", None, [1], "0x10"]
)
def test_inputs_that_are_no_finite_numbers_are_refused(tmp_path: Path, value: Any) -> None:
    runner = opened(exported(tmp_path / "b", {"o": floats(1, 1)}, input=VECTOR, **REGRESSION))
    with pytest.raises(BackendError, match="expected"):
        runner.infer(sample([1, 2, 3, value]))
    assert runner.infer(sample([1, " 2 ", "-3e0", 4])) is not None


# --- and in a pipeline ---


def test_a_misfit_is_a_problem_until_a_bundle_fits(tmp_path: Path) -> None:
    """The loader says so in the health; see test_onnx_backend for what happens to the version that runs."""
    context: Context = make_context(tmp_path / "work")
    folder = exported(tmp_path / "b", {"scores": floats(1, 4)}, **SOFTMAX)
    settings = OnnxBackend(model="Tiny", path=str(folder))
    model = OnnxModel(settings, pipeline(settings, CameraSource(camera="c")), context, "pipelines.p")
    try:
        problems = context.health.problems
        (found,) = eventually(problems.current, 10, "a problem")
        assert (found.code, found.subject) == ("model_refused", "pipelines.p.model")
        assert "a background class" in found.text
        declared = json.loads((folder / "model.json").read_text())
        declared["labels"] = ["background", *LABELS]
        (folder / "model.json").write_text(json.dumps(declared))
        eventually(model.poll, 10, "the model")
        eventually(lambda: not problems.current(), 10, "its end")
    finally:
        model.close()
