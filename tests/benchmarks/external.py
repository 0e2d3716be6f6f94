"""What a model in another process costs besides: shared memory and two messages, beside the same session in-process."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from benchmarks.harness import Row, percentile
from edgeml import models
from edgeml.bundle import Bundle
from fitting_support import save
from inferencer.backends.external_session import ExternalSession
from inferencer.backends.onnx import OnnxBackend
from inferencer.preprocess import Array
from inferencer.sources.camera import CameraSource
from inferencer.tasks import runner_of
from inferencer.tasks.runner import Runner
from inferencer_support import describe, pipeline, sample
from support import ROOT

SIDE = 640
ROUNDS = 300


def run() -> list[Row]:
    image = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        bundle = models.load(written(Path(folder) / "bundle"))
        with helped(bundle, Path(folder) / "s") as session:
            figures = interleaved(
                {
                    "external": asked(runner(session.bundle, session), image),
                    "own": asked(runner(bundle, models.open_session(bundle, threads=1)), image),
                }
            )
    added = figures["external"] - figures["own"]
    return [
        Row(
            bench="external",
            metric=f"added to an inference at {SIDE}x{SIDE}, p50",
            unit="ms",
            value=added,
            limit=figures["own"],
            ratio=figures["external"] / figures["own"],
            bar="<= 0.5 ms; limit: the same in one process",
            ok=added <= 0.5,
        )
    ]


def written(folder: Path) -> Path:
    """A detector that hardly computes: the sum over the picture, and a table of 8,400 boxes."""
    folder.mkdir()
    nodes = [
        helper.make_node("MaxPool", ["images"], ["small"], kernel_shape=[64, 64], strides=[64, 64]),
        helper.make_node("ReduceMean", ["small"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "zeros"], ["output0"]),
    ]
    zeros = onnx.numpy_helper.from_array(np.zeros((1, 84, 8400), np.float32), "zeros")
    taken = [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])]
    given = [helper.make_tensor_value_info("output0", TensorProto.FLOAT, [1, 84, 8400])]
    save(helper.make_graph(nodes, "g", taken, given, [zeros]), folder)
    declared: dict[str, Any] = {
        "task": "detection",
        "labels": [str(number) for number in range(80)],
        "input": {"name": "images", "size": [SIDE, SIDE], "scale": 1 / 255},
        "output": {"decoder": "yolo"},
    }
    return describe(folder, "1.0.0", declared)


@contextmanager
def helped(bundle: Bundle, path: Path) -> Iterator[ExternalSession]:
    command = [sys.executable, str(ROOT / "scripts" / "external_helper.py"), str(bundle.path), str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            if process.stdout is None or not process.stdout.readline().startswith("listening"):
                raise RuntimeError("the helper does not start")
            session = ExternalSession(str(path), "", 5.0, 64 << 20)
            yield session
            session.close()
        finally:
            process.kill()


def runner(bundle: Bundle, session: Any) -> Runner:
    return runner_of(bundle, session, pipeline(OnnxBackend(model="M"), CameraSource(camera="c")))


def asked(model: Runner, image: Array) -> Callable[[], float]:
    def once() -> float:
        began = time.perf_counter()
        model.infer(sample(image))
        return (time.perf_counter() - began) * 1e3

    return once


def interleaved(contestants: dict[str, Callable[[], float]]) -> dict[str, float]:
    """The median of each, all asked in turn."""
    figures: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, contestant in contestants.items():
            figures[name].append(contestant())
    return {name: percentile(values, 50) for name, values in figures.items()}
