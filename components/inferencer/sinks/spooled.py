"""Results that wait on disk until somebody in the network has taken them."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from edgeml.clock import CLOCK
from edgeml.drainer import Drainer
from edgeml.errors import IpcError, SecretError, SinkError
from edgeml.messages import InferenceResult
from edgeml.outbox import stamped
from edgeml.spool import Item, Spool
from inferencer.parts import Place, Sink, SinkSettings
from inferencer.results import TIMES, fitted
from inferencer.sample import Outcome, Sample

if TYPE_CHECKING:
    from edgeml.component import Context

MAX_BYTES = 256 << 10  # of a message
CLOSE_TIMEOUT_S = 0.25
LABEL = 100  # characters of a label in an address


class SpooledSettings(SinkSettings, frozen=True, kw_only=True):
    every: Annotated[int, Meta(ge=1, le=1_000_000, description="Send each Nth result that is not left out")] = 1
    empty: Annotated[bool, Meta(description="Send results in which nothing was found, too")] = False
    spool_bytes: Annotated[
        int, Meta(ge=0, le=2**40, description="Disk space for results that wait; the oldest go first")
    ] = 16 * 2**20


class SpooledSink(Sink):
    """A spool of its own, emptied by `send`: Raises RefusedError for an answer that will not change, else SinkError."""

    def __init__(self, settings: SpooledSettings, place: Place, lane: str) -> None:
        self._spooling, self._context = settings, place.context
        self._writer = place.writer()
        self._health = self._context.health.scope(place.prefix)
        path = self._context.work / f"{place.prefix}.spool"
        self._found = 0
        self._spool = Spool(
            path,
            max_bytes=settings.spool_bytes,
            lane=lambda topic: lane,  # one receiver, whatever the topic
            problems=self._context.health.problems,
            subject=place.prefix,
        )
        self._drainer = Drainer(self._spool, self._deliver, transient=(IpcError, SecretError, SinkError))
        self._spool.measured(self._health)

    def put(self, sample: Sample, outcome: Outcome, result: InferenceResult) -> None:
        if outcome.empty and not self._spooling.empty:
            return
        self._found += 1
        if (self._found - 1) % self._spooling.every == 0:
            self._writer.put(partial(self._store, result))

    def close(self) -> None:
        """Send what can be sent now; the rest goes out after the next start."""
        self._drainer.stop(flush_timeout=CLOSE_TIMEOUT_S)
        self._spool.close()

    def topic(self, result: InferenceResult) -> str:
        """What the result is kept under."""
        return result.pipeline

    @abstractmethod
    def send(self, item: Item, payload: bytes) -> None: ...

    def _store(self, result: InferenceResult) -> None:
        self._spool.put(self.topic(result), fitted(result, MAX_BYTES), headers={"task": result.task})

    def _deliver(self, item: Item) -> None:
        self.send(item, stamped(item, TIMES, CLOCK, 0.0, self._context.health.problems))
        self._health.count("sent")


def label_of(result: InferenceResult) -> str:
    """The best label of a result, `none` where nothing was found, the task where it has no labels."""
    found = result.results
    if isinstance(found, list):
        return str(found[0].label)[:LABEL] if found else "none"
    return result.task


def filled(topic: str, context: Context, pipeline: str, label: str) -> str:
    """A configured topic without its {placeholders}."""
    return topic.replace("{thing}", context.thing_name).replace("{pipeline}", pipeline).replace("{label}", label)
