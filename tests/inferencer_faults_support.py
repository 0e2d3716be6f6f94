"""What libraries raise, and a runner of a tiny model that calls some of them."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import msgspec
import paho.mqtt.client as mqtt
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from edgeml.component import Context
from edgeml.errors import BackendError
from edgeml.messages import ModelRef, Regression, SampleRef
from inferencer.backends.onnx import OnnxBackend
from inferencer.parts import Model, SampleSource
from inferencer.pipeline import PipelineWorker
from inferencer.sample import Outcome, Sample, Timer
from inferencer.sources.camera import CameraSource
from inferencer.tasks import runner_of
from inferencer_support import pipeline as pipeline_of

ERRORS: dict[str, Callable[[], BaseException]] = {
    "ValueError": lambda: ValueError("x"),
    "TypeError": lambda: TypeError("x"),
    "OverflowError": lambda: OverflowError("int too large to convert to float"),
    "RecursionError": lambda: RecursionError("maximum recursion depth exceeded"),
    "UnicodeEncodeError": lambda: UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates not allowed"),
    "MemoryError": MemoryError,
    "KeyError": lambda: KeyError("x"),
    "AttributeError": lambda: AttributeError("x"),
    "StopIteration": StopIteration,
    "AssertionError": AssertionError,
    "OSError": lambda: OSError(28, "No space left on device"),
    "cv2.error": lambda: cv2.error("x"),
    "onnxruntime": lambda: ort_errors.Fail("x"),
    "onnxruntime, invalid": lambda: ort_errors.InvalidArgument("x"),
    "paho": lambda: mqtt.WebsocketConnectionError("x"),
    "msgspec": lambda: msgspec.ValidationError("x"),
}


class Parts(SampleSource, Model):
    """Source, model and sinks of a pipeline; the one called `fault` raises `error` while there is one."""

    def __init__(self, fault: str, error: Callable[[], BaseException]) -> None:
        self.fault, self.error = fault, error
        self.results: list[str] = []
        self.closed: list[str] = []

    def cross(self, border: str) -> None:
        if border == self.fault:
            raise self.error()

    def next(self, timeout: float) -> Sample | None:
        self.cross("source")
        time.sleep(0.002)
        return Sample([1.0], SampleRef(), time.monotonic_ns(), reply=self.replied)

    def replied(self, result: Any) -> None:
        self.cross("reply")

    def poll(self) -> bool:
        self.cross("poll")
        return True

    def infer(self, sample: Sample) -> Outcome | None:
        self.cross("model")
        if self.fault == "reply":
            raise BackendError("to be answered")
        return Outcome("regression", ModelRef("m", "1"), Regression(1.0), Timer())

    def close(self) -> None:
        self.closed.append("part")
        raise self.error()

    def sink(self, name: str) -> Any:
        parts = self

        class Given:
            def seen(self, sample: Sample) -> None:
                if name == "sink":
                    parts.cross("seen")

            def put(self, *given: Any) -> None:
                parts.cross(name)
                parts.results.append(name)

            close = parts.close

        return Given()

    def worker(self, name: str, context: Context) -> PipelineWorker:
        sinks = [self.sink("sink"), self.sink("second sink"), self.sink("third sink")]
        return PipelineWorker(name, self, self, sinks, context)


def opened(folder: Path) -> Any:
    from edgeml import models

    bundle = models.load(folder)
    backend = OnnxBackend(model="Tiny")
    settings = pipeline_of(backend, CameraSource(camera="c"))
    return runner_of(bundle, models.open_session(bundle, threads=1), settings)
