"""What flows through a pipeline: a sample in, an outcome out."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from edgeml.messages import Classification, Detection, InferenceResult, ModelRef, Source
from edgeml.models import Task

Array = np.ndarray[Any, Any]
Reply = Callable[[InferenceResult], None]


@dataclass(slots=True)
class Sample:
    """One input. `data` is an image (pixel_format says its layout) or a vector; `arrived_ns` is monotonic.

    `valid` says whether `data` is still what it was: frames are used in place, in the ring.
    """

    data: Array
    source: Source
    arrived_ns: int
    pixel_format: str = ""
    request_id: str = ""
    valid: Callable[[], bool] = lambda: True
    reply: Reply | None = None


@dataclass(slots=True)
class Timer:
    """Seconds spent per step of one inference."""

    preprocess: float = 0.0
    inference: float = 0.0
    postprocess: float = 0.0
    _mark: float = field(default_factory=time.perf_counter)

    def lap(self, step: str) -> None:
        now = time.perf_counter()
        setattr(self, step, now - self._mark)
        self._mark = now


@dataclass(slots=True)
class Outcome:
    """A model's answer to one sample. `results` is what InferenceResult.results holds for the task."""

    task: Task
    model: ModelRef
    results: Any
    timer: Timer
    backend: str = ""

    @property
    def empty(self) -> bool:
        """Nothing was found. Anomalies and values are always something."""
        return isinstance(self.results, list) and not self.results

    def detections(self) -> list[Detection]:
        found = self.results if isinstance(self.results, list) else []
        return [item for item in found if isinstance(item, Detection)]

    def classes(self) -> list[Classification]:
        found = self.results if isinstance(self.results, list) else []
        return [item for item in found if isinstance(item, Classification)]


class SampleSource(Protocol):
    """Gives a pipeline its samples, on the pipeline's thread."""

    def next(self, timeout: float) -> Sample | None:
        """The next sample, or None if none came within `timeout` seconds. Raises EdgemlError."""

    def close(self) -> None: ...


class Model(Protocol):
    """Answers samples. `poll` is called between two samples and may put another version in place."""

    def poll(self) -> bool:
        """Whether a model is ready to answer."""

    def infer(self, sample: Sample) -> Outcome | None:
        """The answer, or None if the sample was overwritten while it was read. Raises BackendError."""

    def close(self) -> None: ...
