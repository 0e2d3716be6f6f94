import os
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from model_updater.errors import Stopped, UpdateError
from model_updater.probe import probe
from ota_support import bundle_files, tiny_model

MEMORY = 4 << 30


def placed(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def graph(nodes: list[onnx.NodeProto], constants: list[onnx.TensorProto]) -> bytes:
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def endless() -> bytes:
    """A loop of 2^62 rounds: valid, and never done."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["cond_in"], ["cond_out"]),
            helper.make_node("Add", ["v_in", "v_in"], ["v_out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("cond_in", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_in", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("cond_out", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v_out", TensorProto.FLOAT, None),
        ],
    )
    return graph(
        [helper.make_node("Loop", ["n", "go", "x"], ["y"], body=body)],
        [
            helper.make_tensor("n", TensorProto.INT64, [], [2**62]),
            helper.make_tensor("go", TensorProto.BOOL, [], [True]),
        ],
    )


def greedy() -> bytes:
    """Asks for 2^38 floats, one terabyte."""
    shape = np.array([1 << 19, 1 << 19], dtype=np.int64)
    return graph(
        [helper.make_node("ConstantOfShape", ["s"], ["big"]), helper.make_node("Add", ["big", "x0"], ["y"])],
        [
            helper.make_tensor("s", TensorProto.INT64, [2], shape.tolist()),
            helper.make_tensor("x0", TensorProto.FLOAT, [], [0.0]),
        ],
    )


def test_a_good_model_passes(tmp_path: Path) -> None:
    probe(placed(tmp_path, bundle_files("1")), 30, MEMORY, threading.Event())


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (b"not a model", "cannot load"),
        (tiny_model(float("nan")), "not finite"),
        (tiny_model(float("inf")), "not finite"),
        (greedy(), "onnx"),
    ],
    ids=["garbage", "nan", "infinite", "greedy"],
)
def test_a_model_that_does_not_work_is_refused_with_the_reason(model: bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(UpdateError, match=words):
        probe(placed(tmp_path, bundle_files("1", model)), 30, MEMORY, threading.Event())


def test_outputs_of_another_shape_are_refused(tmp_path: Path) -> None:
    files = bundle_files("1", output={"decoder": "anomaly", "shapes": {"y": [-1, 5]}})
    with pytest.raises(UpdateError, match="expected"):
        probe(placed(tmp_path, files), 30, MEMORY, threading.Event())


def test_a_model_that_never_ends_is_ended(tmp_path: Path) -> None:
    with pytest.raises(UpdateError, match="in the time allowed"):
        probe(placed(tmp_path, bundle_files("1", endless())), 1.5, MEMORY, threading.Event())
    assert_gone(tmp_path)


def test_a_stop_ends_the_probe(tmp_path: Path) -> None:
    stopping = threading.Event()
    threading.Timer(0.3, stopping.set).start()
    started = time.monotonic()
    with pytest.raises(Stopped):
        probe(placed(tmp_path, bundle_files("1", endless())), 30, MEMORY, stopping)
    assert time.monotonic() - started < 5
    assert_gone(tmp_path)


def assert_gone(folder: Path) -> None:
    """No process has the folder on its command line."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                assert str(folder).encode() not in (entry / "cmdline").read_bytes()
            except OSError:
                continue
