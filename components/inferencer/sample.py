"""What flows through a pipeline: a sample in, an outcome out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from edgeml.bundle import Task
from edgeml.errors import BackendError, EdgemlError
from edgeml.messages import Detection, Hidden, InferenceResult, ModelRef, Regression, SampleRef
from edgeml.numbers import number
from inferencer.tracks import Step, Track

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]
else:
    Array = Any  # sources and sinks are configured, and most of them work, without NumPy

Values = Sequence[str | float] | Mapping[str, float]
MAX_REASON = 1000  # characters of an error that go into an answer
MAX_BOXES = 300  # of a picture that a decoder tells of, best first
Reply = Callable[[InferenceResult], None]


def _whole() -> bool:
    return True


@dataclass(slots=True)
class Sample:
    """One input. `data` is an image (pixel_format says its layout) or numbers; `arrived_ns` is monotonic.

    `valid` says whether `data` is still what it was: frames are used in place, in the ring. `reply` gets the answer
    to a request, or an error. `measured` is the true value of a regression, where it is known. A crop of a detection
    has the `track` of its object, if that is followed, and what is `hidden` in it.
    """

    data: Array | Values
    source: SampleRef
    arrived_ns: int
    pixel_format: str = ""
    request_id: str = ""
    valid: Callable[[], bool] = _whole
    reply: Reply | None = None
    measured: float | None = None
    track: Track | None = None
    hidden: Hidden | None = None

    def hold(self) -> None:
        """Keep an image as it is, also when its place in the ring is used again before the model has answered."""
        if self.valid is not _whole:
            data = self.image.copy()
            if self.valid():
                self.data, self.valid = data, _whole

    @property
    def image(self) -> Array:
        """`data`, which must be an image. Raises BackendError."""
        if getattr(self.data, "ndim", 0) < 2:
            raise BackendError("the model takes images, the source gives numbers")
        return cast(Array, self.data)

    @property
    def values(self) -> Values:
        """`data`, which must be numbers. Raises BackendError."""
        dimensions = getattr(self.data, "ndim", 0)
        if dimensions > 1:
            raise BackendError("the model takes numbers, the source gives images")
        return [float(value) for value in self.data] if dimensions else cast(Values, self.data)


@dataclass(slots=True)
class Timer:
    """Seconds spent per step of one inference."""

    preprocess: float = 0.0
    inference: float = 0.0
    postprocess: float = 0.0
    _mark: float = field(default_factory=time.perf_counter)

    def lap(self, step: str) -> None:
        now = time.perf_counter()
        setattr(self, step, getattr(self, step) + now - self._mark)
        self._mark = now


@dataclass(slots=True)
class Outcome:
    """A model's answer to one sample. `results` is what InferenceResult.results holds for the task.

    `threshold` is the score below which detections are only there for whoever follows objects or hides them; with
    `tracking`, `step` has the track of each of `results`, None for a sample that came too late to be followed. With
    `privacy`, `hidden` says what no picture of the sample may show.
    """

    task: Task
    model: ModelRef
    results: Any
    timer: Timer
    backend: str = ""
    threshold: float = 0.0
    step: Step | None = None
    hidden: Hidden | None = None

    @property
    def empty(self) -> bool:
        """Nothing was found. Anomalies and values are always something."""
        return isinstance(self.results, list) and not self.results

    def detections(self) -> list[Detection]:
        found = self.results if isinstance(self.results, list) else []
        return [item for item in found if isinstance(item, Detection)]


@contextmanager
def foreign(what: str) -> Iterator[None]:
    """Whatever a library raises becomes a BackendError about `what`; our own errors stay what they are."""
    try:
        yield
    except EdgemlError:
        raise
    except Exception as error:
        raise BackendError(f"{what}: {error!r}"[:MAX_REASON]) from error


def ordered(values: Values, names: Sequence[str], count: int) -> list[float]:
    """`values` as `count` numbers, those of a mapping in the order of `names`. Raises BackendError."""
    if isinstance(values, Mapping):
        missing = [name for name in names if name not in values]
        if missing or not names:
            raise BackendError(f"features missing: {', '.join(missing) or 'the model names none, send a list'}")
        values = [values[name] for name in names]
    if len(values) != count:
        raise BackendError(f"expected {count} numbers, got {len(values)}")
    return finites(values)


def finites(values: Iterable[object]) -> list[float]:
    """All of `values`, by `finite`; thousands of plain numbers at once. Raises BackendError."""
    found: list[Any] = list(values)
    with suppress(OverflowError):
        if set(map(type, found)) <= {float, int} and all(map(math.isfinite, found)):
            return list(map(float, found))
    return [finite(value) for value in found]


def finite(value: object) -> float:
    """A number, or a text that is one, as JSON and CSV give them. Raises BackendError, also for what is not finite."""
    try:
        if isinstance(value, str):
            return number(value.strip())
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise BackendError(f"expected finite numbers: {error}") from error
    if not math.isfinite(found):
        raise BackendError(f"expected finite numbers, got {found}")
    return found


def compared(prediction: Regression, measured: float) -> Regression:
    """The prediction beside the measured value."""
    return Regression(prediction.value, measured, prediction.value - measured)
