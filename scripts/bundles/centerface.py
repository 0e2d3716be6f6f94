"""CenterFace as its authors published it, made fit for any image size.

The stored graph lists its weights as inputs and fixes the image to [10, 3, 32, 32], so ONNX Runtime refuses other
shapes. Nothing of the arithmetic changes here: shapes become symbolic and tensors get names that say what they hold.
"""

import onnx

INPUT = "input"
OUTPUTS = {"537": "heatmap", "538": "scale", "539": "offset", "540": "landmarks"}


def convert(stored: bytes) -> bytes:
    """The model with input `input` [batch, 3, height, width] and outputs named heatmap [batch, 1, height/4, width/4],
    scale [.., 2, ..], offset [.., 2, ..], landmarks [.., 10, ..].
    """
    model = onnx.load_from_string(stored)
    graph = model.graph
    weights = {tensor.name for tensor in graph.initializer}
    used = {name for node in graph.node for name in node.input}
    _keep(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in used])
    _keep(graph.input, [value for value in graph.input if value.name not in weights])
    del graph.value_info[:]  # they hold the old, fixed shapes
    names = OUTPUTS | {graph.input[0].name: INPUT}
    for node in graph.node:
        _keep(node.input, [names.get(name, name) for name in node.input])
        _keep(node.output, [names.get(name, name) for name in node.output])
    for value in (*graph.input, *graph.output):
        value.name = names[value.name]
    _make_dynamic(graph.input[0], ("batch", "height", "width"))
    for output in graph.output:
        _make_dynamic(output, ("batch", "rows", "columns"))
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _make_dynamic(value: onnx.ValueInfoProto, names: tuple[str, str, str]) -> None:
    batch, _, height, width = value.type.tensor_type.shape.dim
    for dimension, name in zip((batch, height, width), names, strict=True):
        dimension.dim_param = name


def _keep(field, items) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001  (protobuf's repeated fields)
    kept = list(items)
    del field[:]
    field.extend(kept)
