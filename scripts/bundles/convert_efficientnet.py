"""EfficientNet-Lite0 from PyTorch weights to ONNX, batch normalisation folded into the convolutions.

Architecture: Tan and Le, EfficientNet (arXiv:1905.11946), in the Lite variant: no squeeze-and-excitation, ReLU6.
"""

from typing import NamedTuple

import numpy as np

from bundles.graph import Array, Graph
from bundles.torch_file import read_state_dict

EPSILON = 1e-3  # of batch normalisation, as trained


class Stage(NamedTuple):
    repeats: int
    stride: int
    channels: int


STAGES = (
    Stage(1, 1, 16),
    Stage(2, 2, 24),
    Stage(2, 2, 40),
    Stage(3, 2, 80),
    Stage(3, 1, 112),
    Stage(4, 2, 192),
    Stage(1, 1, 320),
)


def convert(weights: bytes) -> bytes:
    """ONNX model: `input` [batch, 3, 224, 224] float32 RGB (pixel - 127) / 128 -> `logits` [batch, 1000]."""
    network = _Network(read_state_dict(weights))
    x = network.convolution("input", "_conv_stem", "_bn0", stride=2)
    block, channels = 0, 32
    for stage in STAGES:
        for repeat in range(stage.repeats):
            stride = stage.stride if repeat == 0 else 1
            y = network.inverted_residual(x, f"_blocks.{block}.", stride)
            x = network.graph.op("Add", y, x) if stride == 1 and channels == stage.channels else y
            block, channels = block + 1, stage.channels
    x = network.convolution(x, "_conv_head", "_bn1")
    network.classifier(x)
    batch = "batch"
    return network.graph.serialize("efficientnet-lite0", {"input": [batch, 3, 224, 224]}, {"logits": [batch, 1000]})


class _Network:
    def __init__(self, weights: dict[str, Array]) -> None:
        self.graph = Graph()
        self._weights = weights
        self._bounds = [
            self.graph.constant(np.array(value, np.float32), name) for value, name in ((0, "zero"), (6, "six"))
        ]

    def inverted_residual(self, x: str, block: str, stride: int) -> str:
        if f"{block}_expand_conv.weight" in self._weights:
            x = self.convolution(x, f"{block}_expand_conv", f"{block}_bn0")
        x = self.convolution(x, f"{block}_depthwise_conv", f"{block}_bn1", stride, depthwise=True)
        return self.convolution(x, f"{block}_project_conv", f"{block}_bn2", activate=False)

    def convolution(
        self, x: str, name: str, norm: str, stride: int = 1, *, depthwise: bool = False, activate: bool = True
    ) -> str:
        weight, bias = self._folded(name, norm)
        x = self.graph.op(
            "Conv",
            x,
            self.graph.constant(weight, f"{name}.weight"),
            self.graph.constant(bias, f"{name}.bias"),
            kernel_shape=weight.shape[2:],
            strides=[stride, stride],
            auto_pad="SAME_UPPER",
            group=weight.shape[0] if depthwise else 1,
        )
        return self.graph.op("Clip", x, *self._bounds) if activate else x

    def classifier(self, x: str) -> None:
        x = self.graph.op("Flatten", self.graph.op("GlobalAveragePool", x))
        weight, bias = (self.graph.constant(self._weights[f"_fc.{kind}"], f"_fc.{kind}") for kind in ("weight", "bias"))
        self.graph.op("Gemm", x, weight, bias, output="logits", transB=1)

    def _folded(self, name: str, norm: str) -> tuple[Array, Array]:
        """Weight and bias of the convolution with the batch normalisation behind it; in float64, then rounded once."""
        weight = self._weights[f"{name}.weight"].astype(np.float64)
        gamma, beta, mean, variance = (
            self._weights[f"{norm}.{kind}"].astype(np.float64)
            for kind in ("weight", "bias", "running_mean", "running_var")
        )
        factor = gamma / np.sqrt(variance + EPSILON)
        return (weight * factor[:, None, None, None]).astype(np.float32), (beta - mean * factor).astype(np.float32)
