"""Batches to CloudWatch Logs. What it leaves out of a batch for its time is sent again as of now."""

import os
import time
from bisect import bisect_left
from collections.abc import Callable

from edgeml.component import Context
from edgeml.errors import ConfigError
from edgeml.health import Health
from log_shipper.batch import Batch
from log_shipper.cloudwatch import CloudWatch
from log_shipper.config import Config
from log_shipper.destination import Names
from log_shipper.errors import DeliveryError
from log_shipper.scan import Log
from log_shipper.times import DAY_MS, TAKEN_DAYS

_MAX_GROUPS = 10_000


class CloudWatchSink:
    """The sink `cloudwatch`; `keeps_days` is what CloudWatch or the group takes, whichever is less."""

    def __init__(
        self,
        client: CloudWatch,
        names: Names,
        health: Health,
        now: Callable[[], float] = time.time,
        keeps_days: int = TAKEN_DAYS,
    ) -> None:
        self.keeps_days = keeps_days
        self._client, self._names, self._health, self._now = client, names, health, now
        self._keeps: dict[str, int] = {}  # ms that a group keeps events, as far as a refusal has told

    def put(self, log: Log, batch: Batch) -> None:
        group = self._names.group_of(log.kind, log.name)
        times, texts = batch.chronological()
        now = int(self._now() * 1000)
        left_out: list[str] = []
        if group in self._keeps and (expired := bisect_left(times, now - self._keeps[group])):
            left_out, times, texts = texts[:expired], times[expired:], texts[expired:]
        if times:
            rejected = self._client.put(group, self._stream(log, times[0]), times, texts)
            left_out += texts[: rejected.old] + texts[rejected.new :]
            self._count(old=rejected.old, new=len(texts) - rejected.new)
            if rejected.expired and len(self._keeps) < _MAX_GROUPS:
                self._keeps[group] = max(0, now - times[rejected.expired - 1] - 1)
        if left_out:
            self._send_as_of_now(group, log, now, left_out)

    def close(self) -> None:
        """Nothing waits here."""

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


def make(config: Config, context: Context) -> CloudWatchSink:
    region = config.region or os.environ.get("AWS_REGION", "") or os.environ.get("AWS_DEFAULT_REGION", "")
    if not region:
        raise ConfigError("region", "neither set here nor as AWS_REGION")
    client = CloudWatch(region, config.retention_days, context.health.problems)
    names = Names(config.log_group, config.log_stream, region, context.thing_name)
    keeps_days = min(TAKEN_DAYS, config.retention_days or TAKEN_DAYS)
    return CloudWatchSink(client, names, context.health, keeps_days=keeps_days)
