"""A wind turbine's readings and verdicts as the cloud's dashboards know them, each at a rate of its own."""

import logging
import time

from edgeml import messages
from edgeml.component import Context
from edgeml.errors import BackendError, SpoolError
from edgeml.log import kv
from edgeml.messages import Anomaly, InferenceResult
from edgeml.outbox import Outbox
from edgeml.turbine import extract
from inferencer.config import Telemetry
from inferencer.sample import Outcome, Sample, following

log = logging.getLogger(__name__)


class TelemetrySink:
    """Publishes `{"type": "rawdata", ...}` and `{"type": "inference", ...}` on device/<thing>/logs."""

    def __init__(self, settings: Telemetry, context: Context, outbox: Outbox) -> None:
        self._topic = telemetry_topic(settings, context.thing_name)
        self._context, self._outbox = context, outbox
        self._rawdata = _Rate(settings.rawdata_every_s)
        self._inference = _Rate(settings.inference_every_s)

    def seen(self, sample: Sample) -> None:
        """Told of every sample, before the model: a reading is worth sending whether or not a verdict is due."""
        if not self._rawdata.due():
            return
        try:
            values = extract(list(sample.values))
        except BackendError:
            return  # the model says so, and counts it
        self._rawdata.took()
        reading = {"ts": round(sample.source.captured_at, 3), "values": [round(value, 4) for value in values]}
        self._send({"type": "rawdata", "data": reading})

    def put(self, sample: Sample, outcome: Outcome, result: InferenceResult) -> None:
        found = outcome.results
        if not isinstance(found, Anomaly) or not self._inference.due():
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

    def close(self) -> None:
        return

    def _send(self, message: dict[str, object]) -> None:
        try:
            self._outbox.send(self._topic, messages.encode(message))
        except SpoolError as error:
            self._context.health.error(error)
            log.error("telemetry not stored %s", kv(type=message["type"], error=error))


def telemetry_topic(settings: Telemetry, thing: str) -> str:
    return settings.topic or f"device/{thing}/logs"


class _Rate:
    """Lets something through every so many seconds; 0 lets everything through."""

    def __init__(self, interval: float) -> None:
        self._interval, self._due = interval, 0.0

    def due(self) -> bool:
        return time.monotonic() >= self._due

    def took(self) -> None:
        """Something went through now."""
        self._due = following(self._due, self._interval)
