"""What models look at, listen to and feel: windows of features from a camera or from values that arrive."""

import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from edge_impulse_runner import images
from edge_impulse_runner.protocol import ModelParameters, ResizeMode
from edgeml.errors import SourceError, UnreadableError
from edgeml.frames import FrameReader
from edgeml.health import Health
from edgeml.numbers import measured

_MAX_WINDOWS = 4  # values that no model takes up are forgotten beyond so many windows


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """Features for one inference. A `continuous` one is the next slice of a stream; `image` is what the model sees."""

    features: NDArray[np.float32]
    arrived: float  # monotonic seconds
    continuous: bool = False
    image: images.Image | None = None


class Source(Protocol):
    """Raises SourceError from `next` when it ended or broke; a new one has then to be made."""

    def next(self, timeout: float) -> Window | None:
        """The next window, None when none came in `timeout` seconds."""

    def close(self) -> None: ...


class CameraSource:
    """Frames of a camera's ring, always the newest one. The camera may come, go and restart."""

    def __init__(self, camera: str, directory: Path, parameters: ModelParameters, mode: ResizeMode) -> None:
        self._camera, self._reader = camera, FrameReader(camera, directory=directory)
        self._parameters, self._mode = parameters, mode

    def next(self, timeout: float) -> Window | None:
        try:
            return self._seen(timeout)
        except UnreadableError:
            raise
        except Exception as error:  # of the ring, which somebody else writes, OpenCV and numpy
            raise SourceError(f"camera {self._camera}: {str(error) or type(error).__name__}") from error

    def _seen(self, timeout: float) -> Window | None:
        frame = self._reader.read(timeout, copy=False)
        if frame is None:
            return None
        image = images.model_input(frame.image, frame.pixel_format, self._parameters, self._mode)
        if not frame.valid():
            return None
        return Window(images.features(image), frame.captured_ns / 1e9, image=image)

    def close(self) -> None:
        self._reader.close()


class SensorSource:
    """Samples of accelerometers and the like that arrive in messages, in windows that may overlap.

    A message is a sample or several: a JSON list of numbers, lists or objects, one object, or numbers with commas.
    `axes` names an object's fields in the model's order, dotted where they are nested. `feed` is for any thread.
    """

    def __init__(self, parameters: ModelParameters, axes: list[str], stride_s: float, health: Health) -> None:
        self._size, self._axis_count = parameters.input_features_count, max(1, parameters.axis_count)
        samples = round(stride_s * 1000 / parameters.interval_ms) if parameters.interval_ms > 0 else 0
        self._stride = min(self._size, samples * self._axis_count) or self._size
        self._axes, self._health = axes, health
        self._most = _MAX_WINDOWS * self._size  # of whole samples, so that axes never change places
        self._values: deque[float] = deque(maxlen=self._most)
        self._arrived = threading.Condition()

    def feed(self, payload: bytes) -> None:
        """Take a message; one that is not understood is counted and told in the health report."""
        try:
            values = self._flat(_parsed(payload))
            if len(values) % self._axis_count:
                raise ValueError(f"{len(values)} numbers are no samples of {self._axis_count} axes")
        except Exception as error:  # noqa: BLE001  (of this message)
            self._health.count("input_rejected")
            self._health.error(f"sample not understood: {error!r}: {payload[:100]!r}")
            return
        with self._arrived:
            over = len(self._values) + len(values) - self._most
            self._values.extend(values)
            if over > 0:
                self._health.count("input_overrun", over)
            self._arrived.notify()

    def next(self, timeout: float) -> Window | None:
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self._values) >= self._size, timeout):
                return None
            window = np.fromiter(self._values, dtype=np.float32, count=self._size)
            for _ in range(self._stride):
                self._values.popleft()
        return Window(window, time.monotonic())

    def close(self) -> None:
        pass

    def _flat(self, found: Any) -> list[float]:
        if isinstance(found, list):
            return [value for item in found for value in self._flat(item)]
        if isinstance(found, dict):
            if not self._axes:
                raise ValueError("an object needs `input.axes`")
            return [value for axis in self._axes for value in self._flat(_at(found, axis))]
        return [measured(found)]


def _parsed(payload: bytes) -> Any:
    try:
        return msgspec.json.decode(payload)
    except msgspec.DecodeError:
        return [part.strip() for part in payload.decode().split(",")]


def _at(found: Any, path: str) -> Any:
    for key in path.split("."):
        found = found[key]
    return found
