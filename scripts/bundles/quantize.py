"""INT8 variants of a model, from ranges of its tensors that `scripts/optimize` measured: no calibration, same bytes.

Numbers become 8 bits and a scale (Jacob et al. 2018, arXiv:1712.05877), weights one scale a channel, by pairs of
QuantizeLinear and DequantizeLinear, which ONNX Runtime fuses with what lies between them when it loads the model.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper, version_converter

from bundles.graph import OPSET

OPERATORS = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul", "Clip", "Relu", "MaxPool", "AveragePool"),
    *("GlobalAveragePool", "Concat", "Resize", "Reshape", "Transpose", "Pad"),
)
ISAS = ("x86_64_vnni", "x86_64", "aarch64")
HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")
SHIELD = "_shield"
HALF = 64 / 127  # of weights' range: the sum of two products fits 16 bits then


@dataclass(frozen=True)
class Plan:
    """How a model is quantized, and for which processors: what calibration found, and nodes that stay in float."""

    method: str
    per_channel: bool
    excluded: Sequence[str]
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
    two products in 16 bits, so that weights have 7 bits there. On ARM both are signed.
    """
    prepared = prepare(model)
    base = _quantized(prepared, plan)
    forms = {"x86_64_vnni": lambda: base, "x86_64": lambda: _reduced(base, prepared), "aarch64": lambda: _signed(base)}
    return {file_name(isa): serialized(forms[isa]()) for isa in plan.isas}


def prepare(model: bytes) -> onnx.ModelProto:
    """The model with named nodes, known shapes, and an opset that can say what is quantized."""
    loaded = onnx.load_from_string(model)
    if any(opset.domain in ("", "ai.onnx") and opset.version < OPSET for opset in loaded.opset_import):
        loaded = version_converter.convert_version(loaded, OPSET)
    for index, node in enumerate(loaded.graph.node):
        node.name = node.name or f"{node.op_type}_{index}"
    return onnx.shape_inference.infer_shapes(loaded)


def _quantized(prepared: onnx.ModelProto, plan: Plan) -> onnx.ModelProto:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as edgeml.onnx_session does
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    model = _copy(prepared)
    ranges: dict[str, Any] = {name: (np.float32(low), np.float32(high)) for name, (low, high) in plan.ranges.items()}
    _shielded(model, plan)
    left = {*plan.excluded, *(node.name for node in model.graph.node if node.name.endswith(SHIELD))}
    nodes = [node.name for node in model.graph.node if node.op_type in OPERATORS and node.name not in left]
    logging.disable(logging.WARNING)  # which asks for steps that were taken
    try:
        data = TensorsData(CalibrationMethod.MinMax, ranges)
        kinds = (QuantType.QInt8, QuantType.QUInt8)
        quantizer = QDQQuantizer(model, plan.per_channel, False, *kinds, data, nodes, [], list(OPERATORS), {})
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    finally:
        logging.disable(logging.NOTSET)
    made: onnx.ModelProto = quantizer.model.model
    del made.graph.value_info[:]
    made.producer_name, made.producer_version = "edgeml", ""
    onnx.checker.check_model(made)
    return made


def _shielded(model: onnx.ModelProto, plan: Plan) -> None:
    """Put a Clip, which changes nothing, before what stays in float.

    Between numbers that are quantized ONNX Runtime quantizes weights by itself, with one scale a tensor, which is what
    was not accurate enough.
    """
    kept = []
    for node in model.graph.node:
        if node.name in plan.excluded and node.op_type in HEAVY and node.input[0] in plan.ranges:
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


def _reduced(base: onnx.ModelProto, prepared: onnx.ModelProto) -> onnx.ModelProto:
    """Weights in 7 bits, and biases in the scale that follows."""
    model = _copy(base)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    floats = {tensor.name: tensor for tensor in prepared.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in tensors:
            continue
        whole, scale = tensors[node.input[0]], tensors[node.input[1]]
        origin = floats[node.input[0].removesuffix("_quantized")]
        sides = [1] * len(whole.dims)
        if numpy_helper.to_array(scale).size > 1:
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            sides[axis] = scale.dims[0]
        wider = (numpy_helper.to_array(scale) / HALF).astype(np.float32)
        values = np.rint(numpy_helper.to_array(origin).astype(np.float64) / wider.reshape(sides))
        limits = np.iinfo(np.int32) if whole.data_type == TensorProto.INT32 else None
        low, high = (limits.min, limits.max) if limits else (-64, 64)
        kind = numpy_helper.to_array(whole).dtype
        whole.CopyFrom(numpy_helper.from_array(values.clip(low, high).astype(kind), whole.name))
        scale.CopyFrom(numpy_helper.from_array(wider, scale.name))
    return model


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
