"""Events that a receiver will not take: kept on the device, with the reason, and tried once more after a restart."""

import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from edgeml.health import Health
from edgeml.log import kv
from edgeml.quarantine import Quarantine
from log_shipper.batch import Batch
from log_shipper.errors import BatchRefused, DeliveryError
from log_shipper.records import Records
from log_shipper.scan import Log
from log_shipper.sinks import Sink

log = logging.getLogger(__name__)

MAX_BYTES = 4 << 20
_SUBJECT = "quarantine"


class Refused:
    """The folder `folder`. Thread-safe."""

    def __init__(self, folder: Path, health: Health) -> None:
        self._health = health
        self._lock = threading.Lock()
        self._folder, self._quarantine = (
            folder,
            None if not folder.is_dir() else Quarantine(folder, max_bytes=MAX_BYTES),
        )
        health.gauge("quarantined", lambda: float(self._quarantine.count if self._quarantine else 0))

    def _opened(self) -> Quarantine | None:
        try:
            return Quarantine(self._folder, max_bytes=MAX_BYTES) if self._folder.is_dir() else None
        except OSError as error:
            log.error("what was refused before cannot be read %s", kv(folder=self._folder, reason=error))
            return None

    def keep(self, sink: str, source: Log, batch: Batch, reason: Exception) -> None:
        """Keep the events of a batch. Raises DeliveryError if there is no room: then they stay in their log."""
        note = {
            "id": time.time_ns(),
            "created_at": time.time(),
            "topic": sink,
            "log": source.name,
            "kind": source.kind,
            "times": batch.times,
            "reason": str(reason)[:1000],
        }
        try:
            with self._lock:
                self._quarantine = self._quarantine or Quarantine(self._folder, max_bytes=MAX_BYTES)
                lost = self._quarantine.add(note, msgspec.json.encode(batch.texts))
        except OSError as error:
            raise DeliveryError(f"cannot keep a refused event in {self._folder}: {error}", "disk_full") from error
        if lost:
            self._health.count("quarantine_dropped", lost)
        self._health.problems.found("quarantined", _SUBJECT, f"{source.name}: {reason} {kv(folder=self._folder)}")

    def again(self, sinks: Mapping[str, Sink], stopping: threading.Event) -> None:
        """Send each once more; what is refused again stays, and an outage leaves the rest for the next start."""
        with self._lock:
            quarantine = self._quarantine
            names = quarantine.names if quarantine else []
        for name in names:
            if stopping.is_set():
                return
            try:
                self._once_more(name, sinks)
            except BatchRefused:
                continue
            except DeliveryError:
                return

    def _once_more(self, name: str, sinks: Mapping[str, Sink]) -> None:
        with self._lock:
            entry = self._quarantine.read(name) if self._quarantine else None
        sink = sinks.get(entry.note["topic"]) if entry else None
        if entry is None or sink is None:
            return
        batch = Batch()
        now = int(time.time() * 1000)
        try:
            texts = msgspec.json.decode(entry.payload, type=list[str])
            source = Log(str(entry.note["log"]), str(entry.note["kind"]))
        except (ValueError, KeyError, RecursionError):
            return
        batch.add(Records([now] * len(texts), texts, list(range(len(texts)))))
        if batch.times:
            sink.put(source, batch)
        with self._lock:
            if self._quarantine:
                self._quarantine.remove(name)
                if not self._quarantine.count:
                    self._health.problems.cleared("quarantined", _SUBJECT)
