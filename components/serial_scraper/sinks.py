"""Where records go: the local topic, IoT Core, and for Edge Impulse results what its own components publish."""

import logging
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import msgspec

from edgeml import messages
from edgeml.edge_impulse.reporter import Reporter
from edgeml.edge_impulse.results import Box, Result, Timing
from edgeml.errors import EdgemlError
from edgeml.health import Health
from edgeml.ipc import Ipc
from edgeml.log import kv
from edgeml.messages import encode
from edgeml.outbox import Put
from edgeml.pace import Throttle
from serial_scraper.config import Port
from serial_scraper.records import Record, SerialRecord

log = logging.getLogger(__name__)

Sink = Callable[[Record, bytes], None]  # a record, and the message that holds it


class RateLimit:
    """A bucket that holds one second's worth and fills continuously."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._clock = per_s, clock
        self._tokens, self._at = max(1.0, per_s), clock()

    def allows(self) -> bool:
        now = self._clock()
        self._tokens = min(max(1.0, self._per_s), self._tokens + (now - self._at) * self._per_s)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class Sinks:
    """All sinks of one port. A failing one is counted and logged, and keeps nothing from the others."""

    def __init__(self, port: str, config: Port, health: Health, sinks: dict[str, Sink]) -> None:
        self._port, self._format, self._sinks = port, config.format, sinks
        self._health = health.scope(f"ports.{port}")
        self._failed: defaultdict[str, Throttle] = defaultdict(Throttle)

    def __call__(self, records: list[Record]) -> None:
        for record in records:
            message = SerialRecord(port=self._port, at=time.time(), format=self._format, record=record)
            try:
                payload = encode(message)
            except Exception as error:  # noqa: BLE001  (of this record; the port goes on)
                self._failure("message", error)
                continue
            for name, sink in self._sinks.items():
                try:
                    sink(record, payload)
                except Exception as error:  # noqa: BLE001  (told with its traceback; the others have theirs)
                    self._failure(name, error)

    def _failure(self, name: str, error: Exception) -> None:
        failed = self._failed[name]
        self._health.count(f"{name}_failed")
        self._health.error(error)
        if failed.due():
            trace = None if isinstance(error, EdgemlError | OSError) else error
            words = kv(port=self._port, to=name, reason=error, times=failed.count)
            log.error("record not delivered %s", words, exc_info=trace)


def local(port: str, config: Port, ipc: Ipc, health: Health) -> Sink:
    """To `edgeml/serial/<port>/record`, as many as `max_records_per_s` allows."""
    topic, of_port = messages.serial_record(port), health.scope(f"ports.{port}")
    limit = RateLimit(config.max_records_per_s)

    def publish(record: Record, payload: bytes) -> None:
        if limit.allows():
            ipc.publish(topic, payload)
        else:
            of_port.count("local_over_rate")

    return publish


def iot_core(port: str, config: Port, put: Put, health: Health) -> Sink:
    """Each Nth record to the configured topic, as many as the rate limit allows; `put` keeps it until delivered."""
    limit, of_port = RateLimit(config.iot_core.max_per_s), health.scope(f"ports.{port}")
    seen = 0

    def publish(record: Record, payload: bytes) -> None:
        nonlocal seen
        seen = (seen + 1) % config.iot_core.every
        if seen:
            return
        if limit.allows():
            put(config.iot_core.topic, payload)
        else:
            of_port.count("iot_core_over_rate")

    return publish


def edge_impulse(reporter: Reporter) -> Sink:
    """What the runner publishes for a Linux model, for a result that a microcontroller computed."""

    def publish(record: Record, payload: bytes) -> None:
        times = {name: _whole(value) for name, value in record["timing"].items()}
        splits = {"time_splits": {**{_SPLITS[name]: value for name, value in times.items()}, "UOM": "ms"}}
        reporter.result(
            _result(record["result"]),
            msgspec.convert(times, Timing),
            info="",
            extras=splits if times else None,
        )

    return publish


_SPLITS = {"dsp": "DSP", "classification": "Classification", "anomaly": "Anomaly", "postprocessing": "Postprocessing"}


def _result(found: dict[str, Any]) -> Result:
    result = msgspec.convert(found, Result)
    if result.object_tracking is not None and result.bounding_boxes is None:
        # Firmware may print tracks alone; an .eim always has the boxes too, and readers look for these.
        boxes = [
            Box(label=track.label, value=track.value, x=track.x, y=track.y, width=track.width, height=track.height)
            for track in result.object_tracking
        ]
        result = msgspec.structs.replace(result, bounding_boxes=boxes)
    return result


def _whole(value: float) -> int | float:
    return int(value) if value.is_integer() else value
