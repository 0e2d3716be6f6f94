"""INT8 variants of a model, from ranges of its tensors that `scripts/optimize` measured: no calibration, same bytes.

Numbers become 8 bits and a scale (Jacob et al. 2018, arXiv:1712.05877), weights one scale a channel, by pairs of
QuantizeLinear and DequantizeLinear, which ONNX Runtime fuses with what lies between them when it loads the model.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper, version_converter

from bundles.graph import OPSET, Array

OPERATORS = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul", "Clip", "Relu", "MaxPool", "AveragePool"),
    *("GlobalAveragePool", "Concat", "Resize", "Reshape", "Transpose", "Pad"),
)
ISAS = ("x86_64_vnni", "x86_64", "aarch64")
HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
SHIELD = "_shield"
LARGEST = 127  # of two weights together: with rounding 128, and 255 times that fits 16 bits


@dataclass(frozen=True)
class Plan:
    """How a model is quantized, and for which processors: what calibration found, and what stays in float there."""

    method: str
    per_channel: bool
    excluded: Mapping[str, Sequence[str]]
    isas: Sequence[str]
    ranges: Mapping[str, tuple[float, float]]


def read_plan(path: Path) -> Plan:
    """`variants.json` beside a build.py."""
    return Plan(**json.loads(path.read_text(encoding="utf-8")))


def file_name(isa: str) -> str:
    return f"model-int8-{isa}.onnx"


def variants(model: bytes, plan: Plan) -> dict[str, bytes]:
    """The files of a plan's variants, by name: the same bytes for the same arguments.

    Activations are unsigned on x86-64, whose instructions multiply unsigned by signed numbers. Those without VNNI add
    two products in 16 bits, so that weights are smaller there. On ARM both are signed.
    """
    prepared = prepare(model)
    forms = {"x86_64_vnni": lambda base: base, "x86_64": lambda base: _narrowed(base, prepared), "aarch64": _signed}
    left = {isa: tuple(plan.excluded.get(isa, ())) for isa in plan.isas}
    bases = {excluded: _quantized(prepared, plan, excluded) for excluded in {*left.values()}}  # mostly one for all
    return {file_name(isa): serialized(forms[isa](bases[excluded])) for isa, excluded in left.items()}


def prepare(model: bytes) -> onnx.ModelProto:
    """The model with named nodes, known shapes, and an opset that can say what is quantized."""
    loaded = onnx.load_from_string(model)
    if any(opset.domain in ("", "ai.onnx") and opset.version < OPSET for opset in loaded.opset_import):
        loaded = version_converter.convert_version(loaded, OPSET)
    for index, node in enumerate(loaded.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    return onnx.shape_inference.infer_shapes(loaded)


def units(prepared: onnx.ModelProto) -> list[tuple[str, ...]]:
    """Names of nodes with weights, each with that of the activation behind it."""
    weights = {tensor.name for tensor in prepared.graph.initializer}
    behind = {node.input[0]: node.name for node in prepared.graph.node if node.op_type in ("Relu", "Clip")}
    heavy = [node for node in prepared.graph.node if len(node.input) > 1 and node.input[1] in weights]
    return [tuple(filter(None, (node.name, behind.get(node.output[0])))) for node in heavy if node.op_type in HEAVY]


def _quantized(prepared: onnx.ModelProto, plan: Plan, excluded: Sequence[str]) -> onnx.ModelProto:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as edgeml.onnx_session does
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    model = _copy(prepared)
    ranges: dict[str, Any] = {name: (np.float32(low), np.float32(high)) for name, (low, high) in plan.ranges.items()}
    _shielded(model, plan, excluded)
    left = {*excluded, *(node.name for node in model.graph.node if node.name.endswith(SHIELD))}
    nodes = [node.name for node in model.graph.node if node.op_type in OPERATORS and node.name not in left]
    options = {"TensorQuantOverrides": channel_scales(model, nodes, plan.ranges.keys())} if plan.per_channel else {}
    logging.disable(logging.WARNING)  # which asks for steps that were taken
    try:
        data = TensorsData(CalibrationMethod.MinMax, ranges)
        kinds = (QuantType.QInt8, QuantType.QUInt8)
        quantizer = QDQQuantizer(model, plan.per_channel, False, *kinds, data, nodes, [], list(OPERATORS), options)
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    finally:
        logging.disable(logging.NOTSET)
    made: onnx.ModelProto = quantizer.model.model
    del made.graph.value_info[:]
    made.producer_name, made.producer_version = "edgeml", ""
    onnx.checker.check_model(made)
    return made


def channel_scales(model: onnx.ModelProto, nodes: Sequence[str], measured: Set[str]) -> dict[str, list[dict[str, Any]]]:
    """For each channel of a convolution's weights what ONNX Runtime would find out channel by channel, for long."""
    convolutions = [node for node in model.graph.node if node.op_type == "Conv" and node.name in nodes]
    shared = {name for node in model.graph.node if node.op_type != "Conv" for name in node.input}
    weights = {node.input[1] for node in convolutions} - shared - measured
    found = {}
    for tensor in model.graph.initializer:
        if tensor.name in weights:
            values = numpy_helper.to_array(tensor)
            most = np.abs(values.reshape(len(values), -1)).max(axis=1).astype(np.float64)
            scales = (2 * most / 254).astype(np.float32)
            scales[2 * most / 254 < np.finfo(np.float32).tiny] = 1
            found[tensor.name] = [{"axis": 0, "scale": scale, "zero_point": 0} for scale in scales]
    return found


def _shielded(model: onnx.ModelProto, plan: Plan, excluded: Sequence[str]) -> None:
    """Put a Clip, which changes nothing, before what stays in float.

    Between numbers that are quantized ONNX Runtime quantizes weights by itself, with one scale a tensor, which is what
    was not accurate enough.
    """
    kept = []
    for node in model.graph.node:
        if node.name in excluded and node.op_type in HEAVY and node.input[0] in plan.ranges:
            name, bounds = f"{node.name}{SHIELD}", plan.ranges[node.input[0]]
            for which, bound in zip(("low", "high"), bounds, strict=True):
                model.graph.initializer.append(numpy_helper.from_array(np.array(bound, np.float32), f"{name}_{which}"))
            kept.append(onnx.helper.make_node("Clip", [node.input[0], f"{name}_low", f"{name}_high"], [name], name))
            node.input[0] = name
        kept.append(node)
    del model.graph.node[:]
    model.graph.node.extend(kept)


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    made = onnx.ModelProto()
    made.CopyFrom(model)
    return made


def _narrowed(base: onnx.ModelProto, prepared: onnx.ModelProto) -> onnx.ModelProto:
    """Weights so small that any two products fit 16 bits, and biases in the scale that follows.

    Those of depthwise convolutions stay as they are: their kernels add in 32 bits.
    """
    model = _copy(base)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in base.graph.initializer}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    floats = {f"{tensor.name}_quantized": numpy_helper.to_array(tensor) for tensor in prepared.graph.initializer}
    makers = {node.output[0]: node for node in model.graph.node if node.input and node.input[0] in floats}
    for node in model.graph.node:
        made = [makers[name] for name in node.input[1:] if name in makers] if node.op_type in HEAVY else []
        if not made or _depthwise(node, arrays[made[0].input[0]]):
            continue
        wider = _wider(floats[made[0].input[0]], arrays[made[0].input[1]], _axis(made[0]))
        for each in made:
            whole, scale = arrays[each.input[0]], (arrays[each.input[1]] * wider).astype(np.float32)
            most = np.iinfo(whole.dtype).max
            values = np.rint(floats[each.input[0]] / _along(scale, _axis(each), whole.ndim)).clip(-most, most)
            tensors[each.input[0]].CopyFrom(numpy_helper.from_array(values.astype(whole.dtype), each.input[0]))
            tensors[each.input[1]].CopyFrom(numpy_helper.from_array(scale, each.input[1]))
    return model


def _wider(weights: Array, scale: Array, axis: int) -> Array:
    """How many times `scale` makes the two largest weights of a channel that have one sign add up to 127 at most."""
    channels = np.moveaxis(weights / _along(scale, axis, weights.ndim), axis, 0).reshape(scale.size, -1)
    sums = [np.sort(np.maximum(each, 0), axis=1)[:, -2:].sum(axis=1) for each in (channels, -channels)]
    return np.asarray(np.maximum(np.maximum(*sums) / LARGEST, 1).reshape(scale.shape))


def _along(scale: Array, axis: int, dimensions: int) -> Array:
    """One number, or one a channel of an array, with doubles for what is computed of them."""
    sides = [-1 if place == axis else 1 for place in range(dimensions)]
    return scale.astype(np.float64).reshape(sides if scale.size > 1 else ())


def _axis(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)


def _depthwise(node: onnx.NodeProto, weights: Array) -> bool:
    group = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return node.op_type == "Conv" and group > 1 and weights.shape[:2] == (group, 1)


def _signed(base: onnx.ModelProto) -> onnx.ModelProto:
    """Activations as signed numbers: all of them, and their zero points, less 128."""
    model = _copy(base)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.UINT8:
            values = numpy_helper.to_array(tensor).astype(np.int16) - 128
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.int8), tensor.name))
    return model


def serialized(model: onnx.ModelProto) -> bytes:
    return bytes(model.SerializeToString(deterministic=True))
