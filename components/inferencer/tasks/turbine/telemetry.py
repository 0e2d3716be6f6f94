"""A wind turbine's readings and verdicts as the cloud's dashboards know them, each at a rate of its own."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from edgeml import messages
from edgeml.errors import BackendError, SpoolError
from edgeml.fields import TopicOrNone, check_topic
from edgeml.log import kv
from edgeml.messages import Anomaly, InferenceResult
from edgeml.pace import Pacer
from inferencer.parts import Place, Sink, SinkSettings
from inferencer.sample import Outcome, Sample

if TYPE_CHECKING:
    from edgeml.component import Context
    from edgeml.outbox import Outbox

log = logging.getLogger(__name__)


class Telemetry(SinkSettings, frozen=True):
    enabled: Annotated[bool, Meta(description="Publish turbine readings and verdicts to AWS IoT Core")] = False
    topic: Annotated[TopicOrNone, Meta(description="Topic; empty is device/<thing>/logs")] = ""
    rawdata_every_s: Annotated[float, Meta(ge=0, le=86400, description="Seconds between readings; 0 sends each")] = 1.0
    inference_every_s: Annotated[float, Meta(ge=0, le=86400, description="Seconds between verdicts; 0 sends each")] = (
        1.0
    )

    def check(self, path: str, thing: str) -> None:
        check_topic(f"{path}.topic", telemetry_topic(self, thing))

    def open(self, place: Place) -> Sink | None:
        return TelemetrySink(self, place.context, place.outbox) if self.enabled else None


class TelemetrySink(Sink):
    """Publishes `{"type": "rawdata", ...}` and `{"type": "inference", ...}` on device/<thing>/logs."""

    def __init__(self, settings: Telemetry, context: Context, outbox: Outbox) -> None:
        from edgeml.turbine import extract

        self._extract = extract
        self._topic = telemetry_topic(settings, context.thing_name)
        self._context, self._outbox = context, outbox
        self._rawdata = Pacer(settings.rawdata_every_s)
        self._inference = Pacer(settings.inference_every_s)

    def seen(self, sample: Sample) -> None:
        """Told of every sample, before the model: a reading is worth sending whether or not a verdict is due."""
        if self._rawdata.wait_s():
            return
        try:
            values = self._extract(list(sample.values))
        except BackendError:
            return  # the model says so, and counts it
        self._rawdata.took()
        reading = {"ts": round(sample.source.captured_at, 3), "values": [round(value, 4) for value in values]}
        self._send({"type": "rawdata", "data": reading})

    def put(self, sample: Sample, outcome: Outcome, result: InferenceResult) -> None:
        found = outcome.results
        if not isinstance(found, Anomaly) or self._inference.wait_s():
            return
        self._inference.took()
        self._send(
            {
                "type": "inference",
                "model_name": outcome.model.name,
                "model_version": outcome.model.version,
                "anomalies": [int(anomaly) for anomaly in found.anomalies],
                "values": found.values,
                "ts": round(sample.source.captured_at, 3),
            }
        )

    def _send(self, message: dict[str, object]) -> None:
        try:
            self._outbox.put(self._topic, messages.encode(message))
        except SpoolError as error:
            self._context.health.error(error)
            log.error("telemetry not stored %s", kv(type=message["type"], error=error))


def telemetry_topic(settings: Telemetry, thing: str) -> str:
    return settings.topic or f"device/{thing}/logs"
