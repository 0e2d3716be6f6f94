"""Layouts that models come with: forests of scikit-learn, the tables of YOLO, pixels in whole numbers."""

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from onnx import TensorProto, helper

from edgeml.errors import BundleError
from fitting_support import (
    IMAGE,
    LABELS,
    REGRESSION,
    SOFTMAX,
    VECTOR,
    YOLO,
    answered,
    exported,
    floats,
    opened,
    save,
    v8,
)
from inferencer.tracking import Tracking
from inferencer_support import describe, picture, sample

# --- forests, as scikit-learn's converters write them ---


def forest(folder: Path, zipmap: str = "", **declared: Any) -> Path:
    """Three classes by the first of four features: below 0, below 1, above."""
    folder.mkdir()
    tree = helper.make_node(
        "TreeEnsembleClassifier", ["input"], ["output_label", "raw"], domain="ai.onnx.ml", post_transform="NONE",
        nodes_treeids=[0] * 5, nodes_nodeids=[0, 1, 2, 3, 4], nodes_featureids=[0, 0, 0, 0, 0],
        nodes_values=[0.0, 0, 1, 0, 0], nodes_modes=["BRANCH_LT", "LEAF", "BRANCH_LT", "LEAF", "LEAF"],
        nodes_truenodeids=[1, 0, 3, 0, 0], nodes_falsenodeids=[2, 0, 4, 0, 0],
        class_treeids=[0] * 6, class_nodeids=[1, 1, 3, 3, 4, 4], class_ids=[0, 1, 0, 1, 1, 2],
        class_weights=[0.9, 0.1, 0.2, 0.8, 0.3, 0.7],
        **({"classlabels_strings": ["a", "b", "c"]} if zipmap == "strings" else {"classlabels_int64s": [0, 1, 2]}),
    )  # fmt: skip
    label = TensorProto.STRING if zipmap == "strings" else TensorProto.INT64
    results = [helper.make_tensor_value_info("output_label", label, None)]
    nodes = [tree]
    if zipmap:
        keys: dict[str, Any] = (
            {"classlabels_strings": ["a", "b", "c"]} if zipmap == "strings" else {"classlabels_int64s": [0, 1, 2]}
        )
        nodes.append(helper.make_node("ZipMap", ["raw"], ["output_probability"], domain="ai.onnx.ml", **keys))
        kind = helper.make_map_type_proto(label, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
        results.append(helper.make_value_info("output_probability", helper.make_sequence_type_proto(kind)))
    else:
        nodes.append(helper.make_node("Identity", ["raw"], ["output_probability"]))
        results.append(helper.make_tensor_value_info("output_probability", TensorProto.FLOAT, None))
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 4])
    save(helper.make_graph(nodes, "forest", [given], results), folder)
    return describe(
        folder, "1.0.0", {"task": "classification", "labels": LABELS, "input": VECTOR, **SOFTMAX, **declared}
    )


@pytest.mark.parametrize("zipmap", ["", "numbers", "strings"])
def test_a_forest_names_what_it_sees(tmp_path: Path, zipmap: str) -> None:
    runner = opened(forest(tmp_path / "b", zipmap), top_k=1)
    for value, label, score in ((-1, "a", 0.9), (0.5, "b", 0.8), (2, "c", 0.7)):
        outcome = runner.infer(sample([value, 0, 0, 0]))
        assert outcome is not None
        (found,) = outcome.results
        assert (found.label, found.score) == (label, pytest.approx(score, abs=1e-5))


def test_scores_by_name_follow_the_labels_order_not_their_own(tmp_path: Path) -> None:
    runner = opened(forest(tmp_path / "b", "strings", labels=["c", "a", "b"]), top_k=1)
    outcome = runner.infer(sample([2, 0, 0, 0]))
    assert outcome is not None
    assert outcome.results[0].label == "c"
    with pytest.raises(BundleError, match="expected scores of the labels, found those of a, b, c"):
        opened(forest(tmp_path / "other", "strings", labels=["x", "y", "z"]))


def test_onnx_runtimes_own_iris_model_takes_three_flowers_at_a_time(tmp_path: Path) -> None:
    folder = tmp_path / "b"
    folder.mkdir()
    source = Path(onnxruntime.__file__).parent / "datasets" / "logreg_iris.onnx"
    (folder / "model.onnx").write_bytes(source.read_bytes())
    declared = {"name": "float_input", "layout": "tensor", "shape": [2]}
    describe(folder, "1.0.0", {"task": "classification", "labels": LABELS, "input": declared, **SOFTMAX})
    with pytest.raises(BundleError, match="a batch of 3 where samples come one at a time"):
        opened(folder)


# --- layouts of YOLO ---


@pytest.mark.parametrize(
    ("shape", "declared"),
    [
        ((1, 7, 50), YOLO),  # v8 without a name: its shape says so
        ((1, 50, 8), YOLO),  # v5
        ((1, 50, 8), v8(layout="v5")),
        ((1, 300, 6), {**v8(layout="v5"), "labels": ["bolt"]}),
        ((1, 300, 6), {**v8(layout="v5"), "labels": []}),
        ((1, 5, 1), {**v8(layout="v8"), "labels": ["bolt"]}),
        ((1, 84, 8400), {**YOLO, "labels": []}),
        ((1, 25200, 85), {**YOLO, "labels": []}),
    ],
)
def test_a_layout_that_fits_loads(tmp_path: Path, shape: tuple[int, ...], declared: dict[str, Any]) -> None:
    found = answered(exported(tmp_path / "b", {"o": floats(*shape, value=0.9)}, **declared))
    assert found
    assert found[0].score in (pytest.approx(0.9, abs=1e-3), pytest.approx(0.81, abs=1e-3))


def test_of_several_tables_the_one_that_fits_is_read(tmp_path: Path) -> None:
    tables = {"embeddings": floats(1, 50, 128), "boxes": floats(1, 7, 50, value=0.9)}
    assert answered(exported(tmp_path / "b", tables, **YOLO))


def test_only_who_follows_objects_gets_boxes_below_the_threshold(tmp_path: Path) -> None:
    rows = floats(1, 9, 8, value=0.0)
    rows[0, :2] = [[2, 2, 2, 2, 0.9, 1, 0, 0], [6, 6, 2, 2, 0.2, 1, 0, 0]]
    folder = exported(tmp_path / "b", {"output0": rows}, **v8(layout="v5"))
    assert [one.score for one in answered(folder)] == [pytest.approx(0.9)]
    outcome = opened(folder, tracking=Tracking()).infer(sample(picture()))
    assert outcome is not None
    assert [one.score for one in outcome.results] == [pytest.approx(0.9), pytest.approx(0.2)]
    assert outcome.threshold == 0.3
    outcome = opened(folder, tracking=Tracking(low_score=0.5)).infer(sample(picture()))
    assert outcome is not None
    assert len(outcome.results) == 1


def test_further_outputs_of_yolo_v5_are_passed_over(tmp_path: Path) -> None:
    heads = {f"head{n}": floats(1, 3, 2, 2, 8) for n in range(3)}
    assert answered(exported(tmp_path / "b", {"output": floats(1, 50, 8, value=0.9), **heads}, **YOLO))


# --- pixels in whole numbers ---


def mirror(folder: Path, dtype: int, layout: str = "NCHW", **declared: Any) -> Path:
    """A regression that gives the mean of its integer input."""
    folder.mkdir()
    shape = [1, 3, 8, 8] if layout == "NCHW" else [1, 8, 8, 3]
    nodes = [
        helper.make_node("Cast", ["input"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats"], ["mean"], keepdims=0),
    ]
    out = [helper.make_tensor_value_info("mean", TensorProto.FLOAT, [])]
    save(helper.make_graph(nodes, "g", [helper.make_tensor_value_info("input", dtype, shape)], out), folder)
    image = {**IMAGE, "layout": layout, "dtype": "uint8" if dtype == TensorProto.UINT8 else "int8", **declared}
    return describe(folder, "1.0.0", {**REGRESSION, "input": image})


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_whole_numbers_heed_scale_mean_and_std(tmp_path: Path, layout: str) -> None:
    grey = picture(100, 100, 100)
    cases: list[tuple[int, dict[str, Any], int]] = [
        (TensorProto.UINT8, {}, 100),
        (TensorProto.INT8, {"mean": [128]}, -28),
        (TensorProto.UINT8, {"scale": 0.5}, 50),
        (TensorProto.INT8, {"mean": [127.5], "std": [1]}, -28),
    ]
    for number, (dtype, declared, expected) in enumerate(cases):
        found = answered(mirror(tmp_path / str(number), dtype, layout, **declared), grey)
        assert found.value == pytest.approx(expected, abs=0.5)


@pytest.mark.parametrize(
    "declared", [{"mean": [127.5], "std": [127.5]}, {"scale": 1 / 255}, {"scale": 2}, {"mean": [1]}]
)
def test_scales_that_whole_numbers_do_not_hold_are_refused(tmp_path: Path, declared: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match=r"scale, mean and std turn pixels into .* the input is uint8"):
        opened(mirror(tmp_path / "b", TensorProto.UINT8, **declared))


def test_raw_pixels_do_not_fit_int8(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="the input is int8"):
        opened(mirror(tmp_path / "b", TensorProto.INT8))
