"""INT8 models: small weights where two products are added in 16 bits, and what stays in float."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from bundles import calibrate, quantize
from edgeml.onnx_session import runtime
from quantize_support import largest_pair

ISAS = ("x86_64_vnni", "x86_64", "aarch64")


def convolution(group: int) -> tuple[bytes, list[dict[str, Any]]]:
    """A model of four channels whose weights and biases differ much from channel to channel, and samples."""
    random = np.random.default_rng(0)
    sizes = np.array([0.01, 0.1, 1, 10], np.float32)
    weights = random.normal(0, 1, (4, 4 // group, 3, 3)).astype(np.float32) * sizes.reshape(-1, 1, 1, 1)
    biases = random.normal(0, 1, 4).astype(np.float32) * sizes
    node = helper.make_node("Conv", ["input", "weights", "biases"], ["output"], "conv", group=group)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 4, 6, 6])],
        [numpy_helper.from_array(weights, "weights"), numpy_helper.from_array(biases, "biases")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return model.SerializeToString(), [{"input": random.uniform(0, 1, (1, 4, 8, 8)).astype(np.float32)} for _ in "1234"]


@pytest.mark.parametrize(("group", "small"), [(1, True), (2, True), (4, False)])
@pytest.mark.parametrize("per_channel", [True, False])
def test_two_products_fit_16_bits_but_where_kernels_add_in_32(group: int, small: bool, per_channel: bool) -> None:
    model, feeds = convolution(group)
    ranges = calibrate.ranges(quantize.prepare(model), "minmax", feeds)
    expected = runtime().InferenceSession(model).run(None, feeds[0])[0]
    for name, made in quantize.variants(model, quantize.Plan("minmax", per_channel, {}, ISAS, ranges)).items():
        arrays = [numpy_helper.to_array(one) for one in onnx.load_from_string(made).graph.initializer]
        (weights,) = (one for one in arrays if one.dtype == np.int8 and one.ndim == 4)
        assert (largest_pair(weights) <= 128) == (small and name == quantize.file_name("x86_64"))
        assert np.abs(weights.astype(int)).max() > 64
        found = runtime().InferenceSession(made).run(None, feeds[0])[0]
        np.testing.assert_allclose(found, expected, atol=0.03 * np.abs(expected).max())


def test_what_is_left_in_float_stays_in_float(tmp_path: Path) -> None:
    """ONNX Runtime would quantize it when it loads the model, with one scale for weights that have none in common."""
    random = np.random.default_rng(0)
    weights = [random.normal(0, 0.3, (4, 4, 1, 1)).astype(np.float32) for _ in range(3)]
    weights[1][0] *= 1000
    weights[2][:, 0] /= 1000
    names = ("input", "one", "two", "output")
    nodes = [
        helper.make_node("Conv", [names[place], f"w{place}"], [names[place + 1]], f"conv{place}") for place in range(3)
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 4, 8, 8])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 4, 8, 8])],
        [numpy_helper.from_array(weight, f"w{place}") for place, weight in enumerate(weights)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8).SerializeToString()
    feeds = [{"input": random.normal(0, 1, (1, 4, 8, 8)).astype(np.float32)} for _ in range(4)]
    ranges = calibrate.ranges(quantize.prepare(model), "minmax", feeds)
    plan = quantize.Plan("minmax", True, {"x86_64_vnni": ("conv1",)}, ("x86_64_vnni",), ranges)
    ((_, made),) = quantize.variants(model, plan).items()
    options = runtime().SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    options.graph_optimization_level = runtime().GraphOptimizationLevel.ORT_ENABLE_BASIC  # all keep names
    runtime().InferenceSession(made, options, providers=["CPUExecutionProvider"])
    kept = {tensor.name: tensor.data_type for tensor in onnx.load(tmp_path / "loaded.onnx").graph.initializer}
    floats = [name for name, kind in kept.items() if kind == TensorProto.FLOAT and name.startswith("w1")]
    assert floats, kept


def test_scales_are_those_that_onnx_runtime_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of channels that differ much, of nothing, and of next to nothing, to the last bit."""
    model, feeds = convolution(1)
    loaded = onnx.load_from_string(model)
    (index,) = (i for i, one in enumerate(loaded.graph.initializer) if one.name == "weights")
    weights = numpy_helper.to_array(loaded.graph.initializer[index]).copy()
    weights[1], weights[2] = 0, 1e-39
    loaded.graph.initializer[index].CopyFrom(numpy_helper.from_array(weights, "weights"))
    ranges = calibrate.ranges(quantize.prepare(model), "minmax", feeds)
    plan = quantize.Plan("minmax", True, {}, ISAS, ranges)
    ours = quantize.variants(loaded.SerializeToString(), plan)
    monkeypatch.setattr(quantize, "channel_scales", lambda *_: {})
    assert ours == quantize.variants(loaded.SerializeToString(), plan)
