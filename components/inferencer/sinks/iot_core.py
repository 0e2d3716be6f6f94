"""Results on AWS IoT Core, through the outbox."""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta

from edgeml.fields import Topic, check_topic
from edgeml.messages import MAX_IPC_BYTES, Anomaly, Classification, InferenceResult, Regression
from inferencer.parts import Place, Sink, SinkSettings
from inferencer.results import fitted
from inferencer.sample import Outcome, Sample

if TYPE_CHECKING:
    from edgeml.outbox import Outbox
    from inferencer.writer import Writer


class IotCore(SinkSettings, frozen=True):
    enabled: Annotated[bool, Meta(description="Publish results to AWS IoT Core")] = True
    topic: Annotated[Topic, Meta(description="Topic")] = "ModelInference"
    when: Annotated[
        Literal["every", "interval", "on_change", "events"],
        Meta(
            description="Publish each Nth result (`every`), the newest one every `interval_s`, those that find other "
            "things than the one before, or events alone (with tracking)"
        ),
    ] = "every"
    interval_s: Annotated[float, Meta(gt=0, le=86400, description="`interval`: seconds between two results")] = 10.0
    every: Annotated[int, Meta(ge=1, le=1_000_000, description="Publish each Nth result that is not empty")] = 1
    qos: Annotated[int, Meta(ge=0, le=1, description="MQTT quality of service")] = 1

    def check(self, path: str, thing: str) -> None:
        check_topic(f"{path}.topic", self.topic)

    def open(self, place: Place) -> Sink | None:
        if not self.enabled:
            return None
        if self.when == "events":
            place.listeners.append(partial(_send, place.outbox, self))
            return None
        return IotCoreSink(self, place.outbox, place.writer())


def _send(outbox: Outbox, settings: IotCore, event: bytes) -> None:
    outbox.put(settings.topic, event, qos=settings.qos)


class IotCoreSink(Sink):
    """Each Nth result that is not empty, or fewer of them by time or by what they say."""

    def __init__(self, settings: IotCore, outbox: Outbox, writer: Writer) -> None:
        self._settings, self._outbox, self._writer = settings, outbox, writer
        self._found = 0
        self._said: object = ()  # by the result before: nothing, at first
        self._last_s = float("-inf")
        self._lock = threading.Lock()

    def put(self, sample: Sample, outcome: Outcome, result: InferenceResult) -> None:
        with self._lock:
            wanted = self._wanted(sample, outcome)
        if wanted:
            self._writer.put(partial(self._store, result))

    def _wanted(self, sample: Sample, outcome: Outcome) -> bool:
        if self._settings.when == "on_change":
            return self._changed(said(outcome.results))
        if outcome.empty:
            return False
        if self._settings.when == "interval":
            return self._due(sample)
        self._found += 1
        return (self._found - 1) % self._settings.every == 0

    def _changed(self, now: object) -> bool:
        changed, self._said = now != self._said, now
        return changed

    def _due(self, sample: Sample) -> bool:
        now_s = sample.arrived_ns / 1e9
        if now_s < self._last_s + self._settings.interval_s:
            return False
        self._last_s = now_s
        return True

    def _store(self, result: InferenceResult) -> None:
        self._outbox.put(self._settings.topic, fitted(result, MAX_IPC_BYTES), qos=self._settings.qos)


def said(results: Any) -> object:
    """What a result says, without how sure it is and where: labels found, the best class, which features are off."""
    if isinstance(results, Anomaly):
        return tuple(results.anomalies)
    if isinstance(results, Regression):
        return results.value
    if results and isinstance(results[0], Classification):
        return results[0].label
    return tuple(sorted(one.label for one in results))
