"""Results on local topics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from edgeml import messages
from edgeml.messages import MAX_IPC_BYTES, InferenceResult
from inferencer.parts import Place, Sink, SinkSettings
from inferencer.results import fitted
from inferencer.sample import Outcome, Sample

if TYPE_CHECKING:
    from edgeml.component import Context


class Local(SinkSettings, frozen=True):
    enabled: Annotated[bool, Meta(description="Publish each result on edgeml/inference/<pipeline>")] = True
    empty: Annotated[bool, Meta(description="Publish results in which nothing was found, too")] = True

    def open(self, place: Place) -> Sink | None:
        return LocalSink(place.name, self, place.context) if self.enabled else None


class LocalSink(Sink):
    """Publishes results on `edgeml/inference/<pipeline>`."""

    def __init__(self, pipeline: str, settings: Local, context: Context) -> None:
        self._topic, self._settings, self._context = messages.inference(pipeline), settings, context

    def put(self, sample: Sample, outcome: Outcome, result: InferenceResult) -> None:
        if self._settings.empty or not outcome.empty:
            self._context.ipc.publish(self._topic, fitted(result, MAX_IPC_BYTES), wait=0)
