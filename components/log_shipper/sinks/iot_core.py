"""Lines as messages to AWS IoT Core, through a durable spool.

A message is `{"thing", "component", "lines": [{"timestamp", "message"}]}` or, for records, `"records": [{"timestamp",
"level", "thread", "logger", "message"}]`; timestamps are Unix milliseconds. A line counts as delivered when its message
is in the spool. While the spool is half full lines wait in their files, so none is dropped.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from edgeml.clock import CLOCK, UNSYNCHRONISED
from edgeml.component import Context
from edgeml.drainer import Drainer
from edgeml.errors import IpcError, RefusedError, SpoolError
from edgeml.fields import check_topic, topic_problem
from edgeml.health import Health
from edgeml.ipc import Ipc
from edgeml.spool import Item, Spool
from log_shipper.batch import Batch, pieces
from log_shipper.config import Config, IotCore
from log_shipper.copier import output_of
from log_shipper.errors import BatchRefused, DeliveryError
from log_shipper.scan import Log

_HEADER_BYTES = 512  # room for thing and component in a message
_FLUSH_S = 1.0
_TEXT = re.compile(r"\S+ \[(?P<level>\w+)\] \((?P<thread>[^)]*)\) (?P<logger>[^:]+): (?P<message>.*)", re.DOTALL)


class IotCoreSink:
    """Puts batches into the spool at `path`, and publishes from there. Raises SpoolError if that cannot be opened."""

    keeps_days = 0

    def __init__(self, config: IotCore, ipc: Ipc, thing: str, path: Path, health: Health | None = None) -> None:
        self._config, self._ipc, self._thing = config, ipc, thing
        check_topic("iotCore.topic", self._topic("a"))
        problems = health.problems if health else None
        self.spool = Spool(path, max_bytes=config.spool_bytes, problems=problems, subject="iot_core")
        self._drainer = Drainer(self.spool, self._publish, transient=(IpcError,))

    def put(self, log: Log, batch: Batch) -> None:
        """Raises DeliveryError if the spool is too full to take the batch without dropping an older one.

        All of the batch is stored or nothing: it is given again, and must not be there in part already.
        """
        if self.spool.size_bytes > self._config.spool_bytes // 2:
            raise DeliveryError(
                f"{self.spool.size_bytes} bytes wait for IoT Core, lines stay in their files until they are out"
            )
        topic = self._topic(log.name)
        if problem := topic_problem(topic):
            raise BatchRefused(f"iotCore.topic: {problem}, in {topic[:300]!r}")
        limit = min(self._ipc.max_iot_bytes, self._config.spool_bytes // 4) - _HEADER_BYTES
        try:
            payloads = list(self._messages(log.name, batch, limit))
            size = sum(len(payload) + _HEADER_BYTES for payload in payloads)
            if size > self._config.spool_bytes // 2:
                raise BatchRefused(f"{size} bytes are more than half of the spool")
            self.spool.put_many(topic, payloads)
        except SpoolError as error:
            raise DeliveryError(str(error)) from error

    def _topic(self, component: str) -> str:
        return self._config.topic.replace("{thingName}", self._thing).replace("{componentName}", component)

    def close(self) -> None:
        self._drainer.stop(_FLUSH_S)
        self.spool.close()

    def _publish(self, item: Item) -> None:
        if len(item.payload) > self._ipc.max_iot_bytes:  # put there under a core that takes more
            raise RefusedError(f"{len(item.payload)} bytes, {self._ipc.max_iot_bytes} are allowed")
        self._ipc.publish_iot(item.topic, item.payload)

    def _messages(self, component: str, batch: Batch, limit: int) -> Iterator[bytes]:
        entries: list[msgspec.Raw] = []
        size = 0
        times, texts = batch.chronological()
        for time_ms, text in zip(times, texts, strict=True):
            for entry in self._entries(time_ms, text, limit):
                if entries and size + len(entry) + 1 > limit:
                    yield self._message(component, entries)
                    entries, size = [], 0
                entries.append(msgspec.Raw(entry))
                size += len(entry) + 1
        if entries:
            yield self._message(component, entries)

    def _entries(self, time_ms: int, text: str, limit: int) -> list[bytes]:
        """One encoded entry, or as many as a text needs that is too long for a message."""
        fields = {"timestamp": time_ms, "message": text}
        if self._config.content == "records":
            fields = record_of(time_ms, text)
        entry = msgspec.json.encode(fields)
        if len(entry) <= limit:
            return [entry]
        half = max(1, len(text.encode()) // 2)
        return [entry for part in pieces(text, half) for entry in self._entries(time_ms, part, limit)]

    def _message(self, component: str, entries: list[msgspec.Raw]) -> bytes:
        message = {"thing": self._thing, "component": component, self._config.content: entries}
        if not CLOCK.believed():
            message["clock"] = UNSYNCHRONISED
        return msgspec.json.encode(message)


def make(config: Config, context: Context) -> IotCoreSink:
    path = context.work / "iot_core.db"
    sink = IotCoreSink(config.iot_core, context.ipc, context.thing_name, path, context.health)
    context.health.gauge("iot_core_spool_bytes", lambda: sink.spool.size_bytes)
    return sink


def record_of(time_ms: int, text: str) -> dict[str, Any]:
    """A nucleus log line in parts; what is not one is all message."""
    output = output_of(text)
    if output is not None and output.json is not None:
        fields = output.json
        return {
            "timestamp": time_ms,
            "level": fields.get("level"),
            "thread": fields.get("thread"),
            "logger": fields.get("loggerName"),
            "message": output.body,
        }
    match = _TEXT.match(text)
    if match is None:
        return {"timestamp": time_ms, "message": text}
    return {"timestamp": time_ms, **match.groupdict(), "message": output.body if output else match["message"]}
