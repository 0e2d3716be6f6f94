"""A model asked so many times per second, and its answers beside what was measured."""

from __future__ import annotations

import itertools
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from edgeml import messages
from edgeml.errors import BackendError, ConfigError, EdgemlError
from edgeml.files import read_regular
from edgeml.messages import InferenceResult, Regression, SampleRef
from inferencer import separated
from inferencer.parts import Place, SampleSource, Sink, SourceSettings
from inferencer.payloads import features_of, numbers, parsed
from inferencer.sample import Outcome, Sample, Values, compared, finite
from inferencer.sources.clock import Clock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgeml.component import Context
    from inferencer.parts import Topics

MAX_IDENTITY = 200  # characters of what names a question
REMEMBERED = 1000  # predictions whose measured value may still come


class CallerSource(SourceSettings, frozen=True, tag="caller", tag_field="type"):
    rate_hz: Annotated[float, Meta(gt=0, le=1000, description="Questions per second")] = 5.0
    file: Annotated[str, Meta(description="CSV with a header, one sample a row, asked round and round")] = ""
    target: Annotated[str, Meta(description="Column of the file that holds the measured value")] = ""
    topic: Annotated[
        str, Meta(description="Local topic of samples `{id?, features, measured?}` instead; the newest is asked")
    ] = ""
    measured_topic: Annotated[
        str, Meta(description="Local topic on which measured values arrive later: `{id, measured}`")
    ] = ""

    def check(self, path: str, thing: str) -> None:
        if bool(self.file) == bool(self.topic):
            raise ConfigError(path, "a caller needs either file or topic")

    def open(self, place: Place) -> SampleSource:
        return CallerSamples(self, place.context, place.prefix, place.name)


class CallerSamples(SampleSource):
    """Asks a model `rate_hz` times per second, with the rows of a file or the newest sample of a topic."""

    def __init__(self, settings: CallerSource, context: Context, prefix: str, pipeline: str = "") -> None:
        settings.check(f"{prefix}.source", "")
        self._settings = settings
        self._clock = Clock(1 / settings.rate_hz)
        self._rows = rows(Path(settings.file), settings.target) if settings.file else None
        self._newest: tuple[str, Values, float | None] | None = None
        self._numbers = itertools.count(1)
        self._context = context
        self._measurements = (
            [Measurements(pipeline, settings.measured_topic, context)] if settings.measured_topic else []
        )

    def topics(self) -> Topics:
        return [(self._settings.topic, self.received)] if self._settings.topic else []

    def sinks(self) -> Sequence[Sink]:
        return self._measurements

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
        source = SampleRef(topic=self._settings.topic or self._settings.file, captured_at=time.time())
        return Sample(data, source, time.monotonic_ns(), request_id=identity, measured=truth)


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


class Measurements(Sink):
    """A sink that adds measured values to predictions: at once where they are known, or when they arrive."""

    def __init__(self, pipeline: str, measured_topic: str, context: Context) -> None:
        self._topic, self._measured, self._context = messages.inference(pipeline), measured_topic, context
        self._lock = threading.Lock()
        self._open: OrderedDict[str, InferenceResult] = OrderedDict()

    def topics(self) -> Topics:
        return [(self._measured, self.received)]

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
