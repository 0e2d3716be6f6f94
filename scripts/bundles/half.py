"""A model in 16-bit floats, for accelerators; and what it computes there, on a CPU.

ONNX Runtime's kernels for CPUs compute it in float32, and leave out the conversions between two of them: what is too
large for 16 bits, or too fine, would not be seen. `spelled_out` says each conversion, which they then have to do.
"""

import os

import onnx
from onnx import TensorProto, helper, numpy_helper

from bundles.quantize import prepare, serialized

FILE = "model-fp16.onnx"


class NotConvertedError(Exception):
    """What the model has that cannot be converted."""


def halved(model: bytes) -> bytes:
    """The file, whose inputs and outputs stay as they are: the same bytes for the same model.

    Raises NotConvertedError.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as edgeml.onnx_session does
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    prepared = prepare(model)
    if any(attribute.HasField("g") or attribute.graphs for node in prepared.graph.node for attribute in node.attribute):
        raise NotConvertedError("parts that run by condition or in loops are not converted")
    if not any(tensor.data_type == TensorProto.FLOAT for tensor in prepared.graph.initializer):
        raise NotConvertedError("it has no weights in float32")
    try:
        made = convert_float_to_float16(prepared, keep_io_types=True)
        ONNXModel(made).topological_sort()
        del made.graph.value_info[:]
        made.producer_name, made.producer_version = "edgeml", ""
        onnx.checker.check_model(made)
    except Exception as error:  # assertions among them
        raise NotConvertedError(f"the converter fails: {error}") from error
    return serialized(made)


def spelled_out(model: bytes) -> bytes:
    """What `halved` gave, in float32, each number of which is rounded to 16 bits as soon as it is computed."""
    made = onnx.shape_inference.infer_shapes(onnx.load_from_string(model))
    halves = {value.name for value in made.graph.value_info if value.type.tensor_type.elem_type == TensorProto.FLOAT16}
    for tensor in made.graph.initializer:
        _widen(tensor)
    nodes = []
    for node in made.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _widen(attribute.t)
            if attribute.name in ("to", "dtype") and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
        nodes.append(node)
        for place, name in enumerate(node.output):
            if name in halves:
                node.output[place] = f"{name}_computed"
                nodes.append(helper.make_node("Cast", [f"{name}_computed"], [f"{name}_half"], to=TensorProto.FLOAT16))
                nodes.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    del made.graph.node[:], made.graph.value_info[:]
    made.graph.node.extend(nodes)
    onnx.checker.check_model(made)
    return serialized(made)


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT16:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype("float32"), tensor.name))
