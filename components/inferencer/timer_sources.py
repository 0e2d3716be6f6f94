"""Samples at our own pace: a file or frame read again and again, or a model asked so many times per second."""

import itertools
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from edgeml import messages, pictures
from edgeml.component import Context
from edgeml.errors import BackendError, ConfigError, EdgemlError
from edgeml.files import read_regular
from edgeml.frames import FrameReader
from edgeml.messages import InferenceResult, Regression, Source
from edgeml.pictures import PictureError
from inferencer import separated
from inferencer.config import CallerSource, TimerSource
from inferencer.request_source import IMAGES, picture
from inferencer.sample import Array, Outcome, Sample, Values, finite, following
from inferencer.stream_sources import features_of, numbers, parsed

log = logging.getLogger(__name__)

MAX_PIXELS = 50_000_000
MAX_TEXT_BYTES = 1 << 20
MAX_IDENTITY = 200  # characters of what names a question
REMEMBERED = 1000  # predictions whose measured value may still come


class Clock:
    """Waits for the next tick of a rate; ticks that were missed are left out."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._due = time.monotonic()

    def wait(self, timeout: float) -> bool:
        """Whether the tick came within `timeout` seconds."""
        ahead = self._due - time.monotonic()
        if ahead > timeout:
            time.sleep(timeout)
            return False
        if ahead > 0:
            time.sleep(ahead)
        self._due = following(self._due, self._interval)
        return True


class TimerSamples:
    """The same file, or the newest frame of a camera, every so often."""

    def __init__(self, settings: TimerSource, directory: Path, prefix: str) -> None:
        if bool(settings.file) == bool(settings.camera):
            raise ConfigError(f"{prefix}.source", "a timer needs either file or camera")
        self._settings = settings
        self._clock = Clock(settings.every_s)
        self._reader = FrameReader(settings.camera, directory=directory) if settings.camera else None

    def next(self, timeout: float) -> Sample | None:
        if not self._clock.wait(timeout):
            return None
        if self._reader is not None:
            frame = self._reader.read(timeout)
            if frame is None:
                raise BackendError(f"camera {self._settings.camera} has no new frame")
            source = Source(camera=self._settings.camera, frame_id=frame.frame_id, captured_at=frame.wall_ns / 1e9)
            return Sample(frame.image, source, frame.captured_ns, frame.pixel_format)
        data = read(Path(self._settings.file))
        source = Source(topic=self._settings.file, captured_at=time.time())
        return Sample(data, source, time.monotonic_ns(), "bgr24")

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()


def read(path: Path) -> Array | Values:
    """An image, an .npy array or a text of numbers. Raises BackendError."""
    try:
        if path.suffix.lower() in (*IMAGES, ".npy"):
            return picture(path, MAX_PIXELS)
        return numbers(pictures.file_bytes(path, max_bytes=MAX_TEXT_BYTES))
    except PictureError as error:
        raise BackendError(str(error)) from error


class CallerSamples:
    """Asks a model `rate_hz` times per second, with the rows of a file or the newest sample of a topic."""

    def __init__(self, settings: CallerSource, context: Context, prefix: str) -> None:
        if bool(settings.file) == bool(settings.topic):
            raise ConfigError(f"{prefix}.source", "a caller needs either file or topic")
        self._settings = settings
        self._clock = Clock(1 / settings.rate_hz)
        self._rows = rows(Path(settings.file), settings.target) if settings.file else None
        self._newest: tuple[str, Values, float | None] | None = None
        self._numbers = itertools.count(1)
        self._context = context

    def received(self, topic: str, payload: bytes) -> None:
        """Handler of the topic of samples: `{id?, features, measured?}`, or just numbers."""
        try:
            found: dict[str, Any] = parsed(payload) if payload[:1] == b"{" else {"features": numbers(payload)}
            measured = found.get("measured")
            identity = str(found.get("id", ""))[:MAX_IDENTITY] or f"{next(self._numbers)}"
            self._newest = identity, features_of(found), None if measured is None else finite(measured)
        except EdgemlError as error:
            self._context.health.count("messages_refused")
            self._context.health.error(f"{topic}: {error}")

    def next(self, timeout: float) -> Sample | None:
        if not self._clock.wait(timeout):
            return None
        if self._rows is not None:
            values, measured = next(self._rows)
            asked: tuple[str, Values, float | None] | None = (f"{next(self._numbers)}", values, measured)
        else:
            asked = self._newest
        if asked is None:
            return None
        identity, data, truth = asked
        source = Source(topic=self._settings.topic or self._settings.file, captured_at=time.time())
        return Sample(data, source, time.monotonic_ns(), request_id=identity, measured=truth)

    def close(self) -> None:
        return


def rows(path: Path, target: str) -> Iterator[tuple[Values, float | None]]:
    """The rows of a CSV with a header, round and round, and their column `target`. Raises BackendError, ConfigError."""
    try:
        data = read_regular(path, separated.MAX_BYTES)
    except OSError as error:
        raise BackendError(f"{path}: {error.strerror}") from error
    table = separated.rows(data, str(path))
    if target and target not in table[0]:
        raise ConfigError("target", f"{path} has no column {target!r}, it has {', '.join(table[0])}")
    truths = [row.pop(target, None) for row in table]
    return itertools.cycle(zip(table, truths, strict=True))


class Measurements:
    """A sink that adds measured values to predictions: at once where they are known, or when they arrive."""

    def __init__(self, pipeline: str, context: Context) -> None:
        self._topic, self._context = messages.inference(pipeline), context
        self._lock = threading.Lock()
        self._open: OrderedDict[str, InferenceResult] = OrderedDict()

    def put(self, sample: Sample, outcome: Outcome, result: InferenceResult) -> None:
        if sample.measured is None and sample.request_id and isinstance(result.results, Regression):
            with self._lock:
                self._open[sample.request_id] = result
                while len(self._open) > REMEMBERED:
                    self._open.popitem(last=False)

    def received(self, topic: str, payload: bytes) -> None:
        """Handler of the topic of measured values: `{id, measured}`."""
        try:
            found: Any = parsed(payload)
            identity, measured = str(found["id"])[:MAX_IDENTITY], finite(found["measured"])
        except (EdgemlError, LookupError, TypeError) as error:
            self._context.health.count("messages_refused")
            self._context.health.error(f"{topic}: expected id and measured: {error!r}")
            return
        with self._lock:
            result = self._open.pop(identity, None)
        if result is None:
            self._context.health.count("measured_without_prediction")
            return
        result = msgspec.structs.replace(result, results=compared(result.results, measured))
        self._context.ipc.publish(self._topic, messages.encode(result))

    def close(self) -> None:
        return


def compared(prediction: Regression, measured: float) -> Regression:
    """The prediction beside the measured value."""
    return Regression(prediction.value, measured, prediction.value - measured)
