"""The first sink: batches to CloudWatch Logs. What it leaves out of a batch for its time is sent again as of now."""

import time
from bisect import bisect_left
from collections.abc import Callable

from edgeml.health import Health
from log_shipper.batch import Batch
from log_shipper.cloudwatch import CloudWatch
from log_shipper.destination import Names
from log_shipper.errors import DeliveryError
from log_shipper.scan import Log
from log_shipper.times import DAY_MS

_MAX_GROUPS = 10_000


class CloudWatchSink:
    """`put` delivers a batch of a log, or raises DeliveryError. Thread-safe."""

    def __init__(self, client: CloudWatch, names: Names, health: Health, now: Callable[[], float] = time.time) -> None:
        self._client, self._names, self._health, self._now = client, names, health, now
        self._keeps: dict[str, int] = {}  # ms that a group keeps events, as far as a refusal has told

    def put(self, log: Log, batch: Batch) -> None:
        group = self._names.group_of(log.kind, log.name)
        times, texts = batch.chronological()
        now = int(self._now() * 1000)
        expired = bisect_left(times, now - self._keeps[group]) if group in self._keeps else 0
        left_out = texts[:expired]
        times, texts = times[expired:], texts[expired:]
        if times:
            rejected = self._client.put(group, self._stream(log, times[0]), times, texts)
            left_out += texts[: rejected.old] + texts[rejected.new :]
            self._count(old=rejected.old, new=len(texts) - rejected.new)
            if rejected.expired and len(self._keeps) < _MAX_GROUPS:
                self._keeps[group] = max(0, now - times[rejected.expired - 1] - 1)
        if left_out:
            self._send_as_of_now(group, log, now, left_out)

    def _send_as_of_now(self, group: str, log: Log, now: int, texts: list[str]) -> None:
        rejected = self._client.put(group, self._stream(log, now), [now] * len(texts), texts)
        if rejected.old or rejected.new < len(texts):
            text = f"{group}: CloudWatch takes no events of what is now for this device, {now} ms since 1970"
            raise DeliveryError(text, "clock")
        self._health.count("events_retimed", len(texts))

    def _stream(self, log: Log, moment: int) -> str:
        return self._names.stream_of(log.name, moment // DAY_MS)

    def _count(self, *, old: int, new: int) -> None:
        if old:
            self._health.count("events_too_old", old)
        if new:
            self._health.count("events_too_new", new)
