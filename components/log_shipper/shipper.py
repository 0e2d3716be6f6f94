"""The machinery: one thread that scans, a few that deliver, one pipeline for each log and sink.

A batch in hand is all that a sender holds in memory. A stream that fails or hangs keeps at most one sender busy, until
its timeout, and then waits for its backoff without one.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path

from edgeml.component import Context
from edgeml.log import kv
from log_shipper import disk
from log_shipper.batch import Batch
from log_shipper.checkpoint import Checkpoint
from log_shipper.config import Config
from log_shipper.errors import CheckpointError
from log_shipper.files import FileSource
from log_shipper.identity import Seen
from log_shipper.journald import JournalSource, component_of, units
from log_shipper.parse import Parser
from log_shipper.pipeline import SCAN_INTERVAL_S, Pipeline
from log_shipper.scan import SYSTEM_KIND, USER_KIND, Log, Scanner

log = logging.getLogger(__name__)

SENDERS = 4
_SCAN_SHARE = 0.05  # of the time at most: 10,000 files take 30 ms to look at
_UNITS_EVERY_S = 60.0
_REOPEN_S = 2.0

Send = Callable[[Log, Batch], None]


class Shipper:
    """Runs from `start` until `stop`. `sinks` are functions that deliver a batch of a log or raise DeliveryError."""

    def __init__(
        self, config: Config, scanner: Scanner, sinks: dict[str, Send], context: Context, journal: bool
    ) -> None:
        self._config, self._scanner, self._sinks, self._context = config, scanner, sinks, context
        self._journal = journal
        self._checkpoint = Checkpoint(Path(context.work) / "checkpoint.db")
        self._pipelines: dict[str, Pipeline] = {}
        self._files: dict[Log, list[FileSource]] = {}
        self._due: queue.SimpleQueue[Pipeline | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._units_at = 0.0

    def start(self) -> None:
        self._threads = [self._context.spawn(f"sender-{number}", self._deliver) for number in range(SENDERS)]
        self._threads.append(self._context.spawn("scan", self._scan))

    def stop(self, timeout: float) -> bool:
        """End the threads, each after the batch it has in hand; whether they did in time."""
        self._stopping.set()
        deadline = time.monotonic() + timeout
        for _ in range(SENDERS):
            self._due.put(None)
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            return False
        for pipeline in self._pipelines.values():
            pipeline.source.close()
        self._checkpoint.close()
        return True

    def backlog(self) -> int:
        return sum(pipeline.source.backlog() for pipeline in list(self._pipelines.values()))

    def lost(self) -> int:
        sources = [source for group in list(self._files.values()) for source in group]
        return sum(source.tail.lost_bytes for source in sources)

    def __len__(self) -> int:
        return len(self._pipelines)

    def _deliver(self) -> None:
        while (pipeline := self._due.get()) is not None and not self._stopping.is_set():
            more = False
            try:
                more = pipeline.step()
            finally:  # an unexpected error is contained by the worker; its log stays among those that are looked at
                pipeline.busy = more
            if more:
                self._due.put(pipeline)  # at the end: each log in turn

    def _open_checkpoint(self) -> None:
        """Without a record of what has been delivered nothing can be sent: wait, as long as the disk is full."""
        while not self._stopping.is_set():
            try:
                self._checkpoint.open()
            except CheckpointError as error:
                log.error("nothing is sent until this works: %s", error)
                self._context.health.error(error)
                self._stopping.wait(_REOPEN_S)
            else:
                return

    def _scan(self) -> None:
        self._open_checkpoint()
        tick = min(self._config.periodic_upload_interval_sec, SCAN_INTERVAL_S)
        wait = 0.0
        while not self._stopping.wait(wait):
            began = time.monotonic()
            news = self._look()
            for name, pipeline in self._pipelines.items():
                if not pipeline.busy and pipeline.due(name in news):
                    pipeline.busy = True
                    self._due.put(pipeline)
            wait = max(tick, (time.monotonic() - began) / _SCAN_SHARE)

    def _look(self) -> set[str]:
        """Scan, make pipelines for logs that are new, tidy up; the names of the pipelines for which there is news."""
        news: set[str] = set()
        for found, seen in self._scanner.scan().items():
            if found not in self._files:
                self._files[found] = [self._add_files(sink, found) for sink in self._sinks]
            sources = self._files[found]
            news.update(source.name for source in sources if source.look(seen))
            self._tidy(found, seen, sources)
        if self._journal and time.monotonic() >= self._units_at:
            self._units_at = time.monotonic() + _UNITS_EVERY_S
            for unit in units(self._config.journald.units):
                self._add_unit(unit)
        return news

    def _tidy(self, found: Log, seen: list[Seen], sources: list[FileSource]) -> None:
        deleted = disk.tidy(seen, found.options, lambda item: all(source.has_delivered(item) for source in sources))
        if deleted:
            self._context.health.count("files_deleted", deleted)

    def _add_files(self, sink: str, found: Log) -> FileSource:
        parser = Parser(
            found.options.minimum_log_level,
            found.record_start,
            rejoin_tracebacks=self._config.rejoin_tracebacks,
        )
        source = FileSource(f"{sink}/{found.id}", parser, self._checkpoint)
        self._pipelines[source.name] = self._pipeline(source, sink, found)
        log.info("log found %s", kv(log=found.name, sink=sink))
        return source

    def _add_unit(self, unit: str) -> None:
        found = Log(component_of(unit), SYSTEM_KIND if unit.startswith("ggl.core.") else USER_KIND)
        for sink in self._sinks:
            name = f"{sink}/journal/{unit}"
            if name not in self._pipelines:
                source = JournalSource(name, unit, self._config.journald.minimum_log_level, self._checkpoint)
                self._pipelines[name] = self._pipeline(source, sink, found)
                log.info("unit found %s", kv(unit=unit, sink=sink))

    def _pipeline(self, source: FileSource | JournalSource, sink: str, found: Log) -> Pipeline:
        send = self._sinks[sink]
        config = self._config
        return Pipeline(
            source,
            lambda batch: send(found, batch),
            self._context.health,
            config.periodic_upload_interval_sec,
            config.max_retry_delay_sec,
        )
