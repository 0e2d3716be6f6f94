"""A small model of pictures that can be quantized, and pictures for it."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from onnx import TensorProto, helper, numpy_helper

from inferencer_support import describe

SIDE = 16


def colours(folder: Path, size: float = 1.0) -> Path:
    """A bundle of a network that tells which colour a picture has most of, by a convolution and weights of chance.

    What it computes in between is `size` times as large.
    """
    folder.mkdir()
    random = np.random.default_rng(0)
    first = random.normal(0, 0.2, (8, 3, 3, 3)).astype(np.float32) * np.float32(size)
    last = np.linalg.pinv(first.sum((2, 3)).astype(np.float64)).astype(np.float32)  # which finds the colours again
    nodes = [
        helper.make_node("Conv", ["input", "first"], ["mixed"], kernel_shape=[3, 3]),
        helper.make_node("GlobalAveragePool", ["mixed"], ["means"]),
        helper.make_node("Flatten", ["means"], ["flat"]),
        helper.make_node("Gemm", ["flat", "last"], ["scores"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(first, "first"), numpy_helper.from_array(last, "last")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    declared = {"name": "input", "size": [SIDE, SIDE], "scale": 1 / 64}
    output = {"decoder": "softmax"}
    return describe(
        folder,
        "1.0.0",
        {"task": "classification", "input": declared, "output": output, "labels": ["red", "green", "blue"]},
    )


def coloured(seed: int, count: int = 8) -> np.ndarray[Any, Any]:
    """Pictures [count, SIDE, SIDE, 3], each with more of one colour than of the others."""
    pictures = np.random.default_rng(seed).integers(0, 80, (count, SIDE, SIDE, 3), np.uint8)
    for number, picture in enumerate(pictures):
        picture[:, :, number % 3] += 120
    return pictures


def pictures(folder: Path, seed: int, count: int = 8) -> Path:
    """The same as files."""
    folder.mkdir()
    for number, picture in enumerate(coloured(seed, count)):
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    return folder
