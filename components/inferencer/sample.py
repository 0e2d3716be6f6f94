"""What flows through a pipeline: a sample in, an outcome out."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from edgeml.errors import BackendError, EdgemlError
from edgeml.messages import Detection, InferenceResult, ModelRef, Source
from edgeml.models import Task
from edgeml.numbers import number

Array = np.ndarray[Any, Any]
Values = Sequence[str | float] | Mapping[str, float]
MAX_REASON = 1000  # characters of an error that go into an answer
Reply = Callable[[InferenceResult], None]


@dataclass(slots=True)
class Sample:
    """One input. `data` is an image (pixel_format says its layout) or numbers; `arrived_ns` is monotonic.

    `valid` says whether `data` is still what it was: frames are used in place, in the ring. `reply` gets the answer
    to a request, or an error. `measured` is the true value of a regression, where it is known.
    """

    data: Array | Values
    source: Source
    arrived_ns: int
    pixel_format: str = ""
    request_id: str = ""
    valid: Callable[[], bool] = lambda: True
    reply: Reply | None = None
    measured: float | None = None

    @property
    def image(self) -> Array:
        """`data`, which must be an image. Raises BackendError."""
        if not isinstance(self.data, np.ndarray) or self.data.ndim < 2:
            raise BackendError("the model takes images, the source gives numbers")
        return self.data

    @property
    def values(self) -> Values:
        """`data`, which must be numbers. Raises BackendError."""
        if isinstance(self.data, np.ndarray):
            if self.data.ndim == 1:
                return [float(value) for value in self.data]
            raise BackendError("the model takes numbers, the source gives images")
        return self.data


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


class SampleSource(Protocol):
    """Gives a pipeline its samples, to one thread at a time."""

    def next(self, timeout: float) -> Sample | None:
        """The next sample, or None if none came within `timeout` seconds. Raises EdgemlError."""

    def close(self) -> None: ...


class Model(Protocol):
    """Answers samples. `poll` is called between two samples and may put another version in place."""

    def poll(self) -> bool:
        """Whether a model is ready to answer."""

    def infer(self, sample: Sample) -> Outcome | None:
        """The answer, or None if this sample has none of its own. Raises BackendError."""

    def close(self) -> None: ...


class Sink(Protocol):
    """Takes results on the pipeline's thread; must not wait for the network."""

    def put(self, sample: Sample, outcome: Outcome, result: InferenceResult) -> None: ...

    def close(self) -> None: ...


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


def vector(values: Sequence[float], dtype: str) -> Array:
    """Numbers as an array of `dtype`. Raises BackendError for one that it does not hold."""
    with np.errstate(over="ignore"):
        found = np.array(values, np.float64 if "int" in dtype else dtype)
    if "int" in dtype:
        limits = np.iinfo(dtype)
        if found.size and (found.min() < limits.min or found.max() > limits.max):
            raise BackendError(f"expected {limits.min} to {limits.max}, got {found.min():g} to {found.max():g}")
        return found.round().astype(dtype)
    if not np.isfinite(found).all():
        raise BackendError(f"expected numbers that {dtype} holds, got {max(values, key=abs):g}")
    return found


def following(due: float, interval: float) -> float:
    """When something is due again that was due at `due` and happens now, on the monotonic clock.

    The rate is kept when it came a little late; what was missed is not made up for.
    """
    now = time.monotonic()
    return due + interval if due + interval > now else now + interval
