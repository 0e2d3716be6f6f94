"""One log on its way to one sink: read, send, record; on failure wait and read again."""

import logging
import time
from collections.abc import Callable

from edgeml.backoff import Backoff
from edgeml.health import Health
from edgeml.log import kv
from edgeml.pace import Throttle
from log_shipper.batch import MAX_EVENTS, Batch
from log_shipper.errors import BatchRefused, CheckpointError, DeliveryError, DoubtedError
from log_shipper.records import Records
from log_shipper.source import Source

log = logging.getLogger(__name__)

SCAN_INTERVAL_S = 1.0  # at most
DOUBTS = 10  # answers without a reason, in a row, until they are taken for refusals
NOTICE = "edgeml.LogShipper: a line of this log was refused, and is kept on the device"
TELL_AFTER = 5  # failures in a row until an outage is a problem; whatever else goes wrong is one at once
_FIRST_DELAY_S = 0.5
_REMIND_S = 300.0  # between log lines about a delivery that goes on failing

Keep = Callable[[Batch, Exception], None]


class Pipeline:
    """`step` runs on one thread at a time; `due` may be asked from another. `keep` sets refused events aside."""

    def __init__(
        self,
        source: Source,
        send: Callable[[Batch], None],
        keep: Keep,
        health: Health,
        interval: float,
        max_delay: float,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.source = source
        self.busy = False  # queued or in a step; owned by the scheduler
        self._send, self._keep = send, keep
        self._health, self._of_log = health, health.scope(f"log.{source.name}")
        self._interval, self._now = interval, now
        self._max_events = MAX_EVENTS
        self._backoff = Backoff(_FIRST_DELAY_S, max_delay)
        self._failures = 0
        self._not_before = 0.0
        self._unrecorded = False
        self._accepted = False  # something, since the last event was set aside
        self._failing_since = 0.0
        self._reminded = 0.0
        self._doubts = 0
        self._told: set[str] = set()
        self._faults, self._kept = Throttle(), Throttle()

    def due(self, news: bool) -> bool:
        """Whether a step is worth its while: `news` says that the source has changed."""
        pending = self.source.waiting or self.source.more or self._failures > 0
        return news or (pending and time.monotonic() >= self._not_before)

    def step(self) -> bool:
        """Deliver one batch, if there is one; whether there is more to be had at once."""
        began = time.monotonic()
        try:
            if began < self._not_before:
                self.source.observe()
                return False
            if self._unrecorded:
                self._record()
            self._deliver()
        except CheckpointError as error:
            self._failed(error)
        except DeliveryError as error:
            self._rewind()
            self._failed(error)
        except Exception as error:  # a fault of ours, or of a disk: this log waits, the others go on
            if self._faults.due():
                log.exception("delivery failed unexpectedly %s", kv(log=self.source.name, count=self._faults.count))
            if not self._unrecorded:  # else it was sent: it is only to be recorded
                self._rewind()
            self._failed(DeliveryError(f"unexpected: {type(error).__name__}: {error}", _code(error)))
        else:
            self._succeeded()
            if self.source.more:
                return True
            # Half a scan early, or a scan that comes a little before its time would be in vain.
            self._not_before = began + self._interval - min(self._interval, SCAN_INTERVAL_S) / 2
        return False

    def _deliver(self) -> None:
        batch = self.source.next_batch(self._max_events)
        if batch.times:
            began = time.monotonic()
            try:
                self._put(batch)
            except BatchRefused as error:
                self._refused(batch, error)
            else:
                self._accepted = True
                self._max_events = min(MAX_EVENTS, self._max_events * 2)
                self._health.count("events", len(batch.times))
                self._health.count("batches")
                self._health.observe("delivery", time.monotonic() - began)
                self._health.observe("lag", max(0.0, time.time() - batch.times[-1] / 1000))
        self._record()

    def _put(self, batch: Batch) -> None:
        try:
            self._send(batch)
        except DoubtedError as error:
            self._doubts += 1
            if self._doubts > DOUBTS:
                raise BatchRefused(str(error)) from error
            raise
        self._doubts = 0

    def _record(self) -> None:
        self._unrecorded = True  # until it is, the batch is neither sent again nor is another one sent
        self.source.delivered()
        self._unrecorded = False

    def _refused(self, batch: Batch, error: BatchRefused) -> None:
        """Halve the batch until the one event at fault is alone; send that with another time, or set it aside.

        If nothing has been accepted since the last one was set aside, the fault may be none of the event's: then a
        notice in its place tells. If not even that is taken, nothing is set aside, and all lines wait.
        """
        if len(batch.times) > 1 and self._max_events > 1:
            self._max_events = max(1, min(self._max_events, len(batch.times)) // 2)
            raise error
        doubted = self._doubts > 0
        try:
            self._put(_as_of_now(batch.texts, self._now))
            self._health.count("events_retimed")
            self._accepted = True
            return
        except BatchRefused:
            pass
        if doubted or not self._accepted:
            self._probe(error)
        self._keep(batch, error)
        self._accepted = False
        self._health.count("events_quarantined")
        if self._kept.due():
            facts = kv(log=self.source.name, count=self._kept.count, reason=error)
            log.error("event dropped, kept in quarantine %s", facts)

    def _probe(self, error: BatchRefused) -> None:
        """Raises DeliveryError if the receiver refuses whatever it is sent."""
        try:
            self._put(_as_of_now([NOTICE], self._now))
        except BatchRefused as refused:
            raise DeliveryError(f"refuses every event: {error}", "refused") from refused

    def _rewind(self) -> None:
        try:
            self.source.rewind()
        except Exception:
            log.exception("cannot go back %s", kv(log=self.source.name))

    def _failed(self, error: DeliveryError | CheckpointError) -> None:
        now = time.monotonic()
        self._failures += 1
        # A refused batch is made smaller at once; everything else waits.
        again_at_once = isinstance(error, BatchRefused)
        self._not_before = now + (0.0 if again_at_once else self._backoff.next())
        self._health.count("failures")
        self._health.error(error)
        self._of_log.note(str(error))
        if not again_at_once:
            self._tell(error)
        if self._failures == 1:
            self._failing_since = now
        if self._failures == 1 or now - self._reminded > _REMIND_S:
            self._reminded = now
            log.error(
                "%s", f"not delivered, will be sent again: {error} {kv(log=self.source.name, failures=self._failures)}"
            )

    def _tell(self, error: DeliveryError | CheckpointError) -> None:
        code = error.code
        if code == "unreachable" and self._failures < TELL_AFTER:
            return
        self._told.add(code)
        self._of_log.found(code, str(error))

    def _succeeded(self) -> None:
        if self._failures:
            seconds = round(time.monotonic() - self._failing_since, 1)
            log.info("delivering again %s", kv(log=self.source.name, after_s=seconds, failures=self._failures))
            self._failures = 0
            self._backoff.reset()
            self._of_log.note("")
            for code in self._told:
                self._of_log.cleared(code)
            self._told.clear()


def _as_of_now(texts: list[str], now: Callable[[], float]) -> Batch:
    batch = Batch()
    batch.add(Records([int(now() * 1000)] * len(texts), texts, [0] * len(texts)))
    return batch


def _code(error: Exception) -> str:
    return "source_failed" if isinstance(error, OSError) else "worker_failed"
