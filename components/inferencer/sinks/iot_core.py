"""Results on AWS IoT Core, through the outbox."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from edgeml.fields import Topic, check_topic
from edgeml.messages import MAX_IPC_BYTES, InferenceResult
from inferencer.parts import Place, Sink, SinkSettings
from inferencer.results import fitted
from inferencer.sample import Outcome, Sample

if TYPE_CHECKING:
    from edgeml.outbox import Outbox
    from inferencer.writer import Writer


class IotCore(SinkSettings, frozen=True):
    enabled: Annotated[bool, Meta(description="Publish results to AWS IoT Core")] = True
    topic: Annotated[Topic, Meta(description="Topic")] = "ModelInference"
    every: Annotated[int, Meta(ge=1, le=1_000_000, description="Publish each Nth result that is not empty")] = 1
    qos: Annotated[int, Meta(ge=0, le=1, description="MQTT quality of service")] = 1

    def check(self, path: str, thing: str) -> None:
        check_topic(f"{path}.topic", self.topic)

    def open(self, place: Place) -> Sink | None:
        return IotCoreSink(self, place.outbox, place.writer()) if self.enabled else None


class IotCoreSink(Sink):
    """Each Nth result that is not empty."""

    def __init__(self, settings: IotCore, outbox: Outbox, writer: Writer) -> None:
        self._settings, self._outbox, self._writer = settings, outbox, writer
        self._found = 0

    def put(self, sample: Sample, outcome: Outcome, result: InferenceResult) -> None:
        if outcome.empty:
            return
        self._found += 1
        if (self._found - 1) % self._settings.every == 0:
            self._writer.put(partial(self._store, result))

    def _store(self, result: InferenceResult) -> None:
        self._outbox.send(self._settings.topic, fitted(result, MAX_IPC_BYTES), qos=self._settings.qos)
