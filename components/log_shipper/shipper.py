"""The machinery: one thread that scans, a few that deliver, one pipeline for each log and sink.

A batch in hand is all that a sender holds in memory. A stream that fails or hangs keeps at most one sender busy, until
its timeout, and then waits for its backoff without one.
"""

import logging
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from edgeml.clock import CLOCK
from edgeml.component import Context
from edgeml.health import Scope
from edgeml.log import kv
from edgeml.pace import Throttle
from log_shipper import disk
from log_shipper.checkpoint import Checkpoint
from log_shipper.config import Config
from log_shipper.errors import CheckpointError, ZoneError
from log_shipper.files import FileSource
from log_shipper.identity import Seen
from log_shipper.journald import JournalSource
from log_shipper.obstacles import Obstacles
from log_shipper.parse import Parser
from log_shipper.pipeline import SCAN_INTERVAL_S, Pipeline
from log_shipper.refused import Refused
from log_shipper.scan import Log, Scanner
from log_shipper.sinks import Sink
from log_shipper.times import Correction, Window, Zone
from log_shipper.units import Units, all_units

log = logging.getLogger(__name__)

SENDERS = 4  # of each sink: one that hangs takes no sender from the other
_SCAN_SHARE = 0.05  # of the time at most: 10,000 files take 30 ms to look at
_UNITS_EVERY_S = 60.0
_REOPEN_S = 2.0


class Shipper:
    """Runs from `start` until `stop`. `sinks` by their names."""

    def __init__(
        self, config: Config, scanner: Scanner, sinks: Mapping[str, Sink], context: Context, journal: bool
    ) -> None:
        self._config, self._scanner, self._sinks, self._context = config, scanner, sinks, context
        self._journal = journal
        self._checkpoint = Checkpoint(Path(context.work) / "checkpoint.db")
        self._pipelines: dict[str, Pipeline] = {}
        self._files: dict[Log, list[FileSource]] = {}
        self._due: dict[str, queue.SimpleQueue[Pipeline | None]] = {sink: queue.SimpleQueue() for sink in sinks}
        self._refused = Refused(Path(context.work) / "quarantine", context.health)
        self._correction = Correction()
        self._faults = Throttle()
        self._units = Units(config)
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._listed: list[str] = []
        self._obstacles = Obstacles(context.health)

    def start(self) -> None:
        spawn = self._context.spawn
        for sink in self._sinks:
            work = partial(self._deliver, self._due[sink])
            self._threads += [spawn(f"{sink}-sender-{number}", work) for number in range(SENDERS)]
        self._threads.append(spawn("scan", self._scan))
        if self._journal:
            spawn("units", self._list_units)
        spawn("quarantine", lambda: self._refused.again(self._sinks, self._stopping), again=False)

    def stop(self, timeout: float) -> bool:
        """End the threads, each after the batch it has in hand; whether they did in time."""
        self._stopping.set()
        deadline = time.monotonic() + timeout
        for due in self._due.values():
            for _ in range(SENDERS):
                due.put(None)
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

    def _deliver(self, due: "queue.SimpleQueue[Pipeline | None]") -> None:
        while (pipeline := due.get()) is not None and not self._stopping.is_set():
            more = False
            try:
                more = pipeline.step()
            finally:  # an unexpected error is contained by the worker; its log stays among those that are looked at
                pipeline.busy = more
            if more:
                due.put(pipeline)  # at the end: each log in turn

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
        tick = min(self._config.interval_s, SCAN_INTERVAL_S)
        health, wait = self._context.health.scope("scan"), 0.0
        while not self._stopping.wait(wait):
            began = time.monotonic()
            self._correction.look()
            try:
                news = self._look()
                health.cleared("worker_failed")
            except Exception as error:  # noqa: BLE001  (the disk, the journal, ours: told, and the next may do better)
                news = set()
                self._contained(health, error)
            self._queue(news)
            wait = max(tick, (time.monotonic() - began) / _SCAN_SHARE)

    def _queue(self, news: set[str]) -> None:
        """Hand over whatever has something to do; as long as the clock may still be set, lines wait for it."""
        held = CLOCK.hold_s(self._config.clock_wait_sec)
        problems = self._context.health.problems
        if held:
            problems.found("clock", "clock", "the clock is not set; lines wait until it is")
        elif CLOCK.believed():
            problems.cleared("clock", "clock")
        for name, pipeline in self._pipelines.items():
            if pipeline.busy:
                continue
            if held:
                self._observe(name, pipeline)
            elif pipeline.due(name in news):
                pipeline.busy = True
                self._due[name.partition("/")[0]].put(pipeline)

    def _observe(self, name: str, pipeline: Pipeline) -> None:
        try:
            pipeline.source.observe()
        except Exception as error:  # noqa: BLE001  (told)
            self._contained(self._of(name), error)

    def _list_units(self) -> None:
        """On a thread of its own: journalctl may take its time, and no log file is to wait for that."""
        wait = 0.0
        while not self._stopping.wait(wait):
            self._obstacles.journal()
            self._listed = [unit for unit in all_units() if self._units.log_of(unit) is not None]
            wait = _UNITS_EVERY_S

    def _look(self) -> set[str]:
        """Scan, make pipelines for logs that are new, tidy up; the names of the pipelines for which there is news."""
        news: set[str] = set()
        for found, seen in self._scanner.scan().items():
            try:
                self._look_at(found, seen, news)
            except Exception as error:  # noqa: BLE001  (told; one log is no reason to leave the others)
                self._contained(self._of(found.name), error)
        self._obstacles.report(self._scanner, (source.tail for group in self._files.values() for source in group))
        for unit in self._listed:
            try:
                self._add_unit(unit)
                self._of(unit).cleared("worker_failed")
            except Exception as error:  # noqa: BLE001  (told; nor is one unit)
                self._contained(self._of(unit), error)
        return news

    def _look_at(self, found: Log, seen: Sequence[Seen], news: set[str]) -> None:
        if found not in self._files:
            self._files[found] = [self._add_files(sink, found) for sink in self._sinks]
        sources = self._files[found]
        news.update(source.name for source in sources if source.look(seen))
        self._tidy(found, seen, sources)
        self._of(found.name).cleared("worker_failed")

    def _of(self, name: str) -> Scope:
        return self._context.health.scope(f"log.{name}")

    def _contained(self, health: Scope, error: Exception) -> None:
        if self._faults.due():
            log.exception("failed unexpectedly, going on %s", kv(part=health.subject, count=self._faults.count))
        health.error(error)
        health.found("worker_failed", f"{type(error).__name__}: {error}")

    def _tidy(self, found: Log, seen: Sequence[Seen], sources: list[FileSource]) -> None:
        deleted = disk.tidy(seen, found.options, lambda item: all(source.has_delivered(item) for source in sources))
        for item in deleted:
            for source in sources:
                source.deleted(item)
        if deleted:
            self._context.health.count("files_deleted", len(deleted))

    def _add_files(self, sink: str, found: Log) -> FileSource:
        parser = Parser(
            found.options.minimum_log_level,
            found.record_start,
            rejoin_tracebacks=self._config.rejoin_tracebacks,
            zone=self._zone(found),
            window=self._window(sink),
        )
        source = FileSource(f"{sink}/{found.id}", parser, self._checkpoint)
        self._pipelines[source.name] = self._pipeline(source, sink, found)
        log.info("log found %s", kv(log=found.name, sink=sink))
        return source

    def _zone(self, found: Log) -> Zone:
        name = found.options.time_zone or self._config.time_zone
        try:
            return Zone(name)
        except ZoneError as error:
            self._context.health.problems.found("time_zone", name, str(error))
            return Zone()

    def _window(self, sink: str) -> Window:
        return Window(self._sinks[sink].keeps_days, correction=self._correction)

    def _add_unit(self, unit: str) -> None:
        found = self._units.log_of(unit)
        for sink in self._sinks:
            name = f"{sink}/journal/{unit}"
            if found is not None and name not in self._pipelines:
                level = found.options.minimum_log_level
                source = JournalSource(name, unit, level, self._checkpoint, self._window(sink))
                self._pipelines[name] = self._pipeline(source, sink, found)
                log.info("unit found %s", kv(unit=unit, sink=sink))

    def _pipeline(self, source: FileSource | JournalSource, sink: str, found: Log) -> Pipeline:
        return Pipeline(
            source,
            lambda batch: self._sinks[sink].put(found, batch),
            lambda batch, reason: self._refused.keep(sink, found, batch, reason),
            self._context.health,
            self._config.interval_s,
            self._config.max_retry_delay_sec,
        )
