"""One log on its way to one sink: read, send, record; on failure wait and read again."""

import logging
import random
import time
from collections.abc import Callable

from edgeml.health import Health
from edgeml.log import kv
from log_shipper.batch import MAX_EVENTS, Batch
from log_shipper.errors import BatchRefused, CheckpointError, DeliveryError
from log_shipper.source import Source

log = logging.getLogger(__name__)

SCAN_INTERVAL_S = 1.0  # at most
_FIRST_DELAY_S = 0.5
_REMIND_S = 300.0  # between log lines about a delivery that goes on failing


class Pipeline:
    """`step` runs on one thread at a time; `due` may be asked from another."""

    def __init__(
        self, source: Source, send: Callable[[Batch], None], health: Health, interval: float, max_delay: float
    ) -> None:
        self.source = source
        self.busy = False  # queued or in a step; owned by the scheduler
        self._send = send
        self._health = health
        self._interval, self._max_delay = interval, max_delay
        self._max_events = MAX_EVENTS
        self._failures = 0
        self._not_before = 0.0
        self._unrecorded = False
        self._accepted = False
        self._failing_since = 0.0
        self._reminded = 0.0

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
            self.source.rewind()
            self._failed(error)
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
                self._send(batch)
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

    def _record(self) -> None:
        self._unrecorded = True  # until it is, the batch is neither sent again nor is another one sent
        self.source.delivered()
        self._unrecorded = False

    def _refused(self, batch: Batch, error: BatchRefused) -> None:
        """Halve the batch until the one event at fault is alone, and drop that one.

        If nothing has ever been accepted the fault is more likely a name or a right, and nothing is dropped.
        """
        if len(batch.times) > 1 or not self._accepted:
            self._max_events = max(1, len(batch.times) // 2)
            raise error
        self._health.count("events_dropped")
        log.error("event dropped %s", kv(log=self.source.name, reason=error, text=batch.texts[0][:200]))

    def _failed(self, error: DeliveryError | CheckpointError) -> None:
        now = time.monotonic()
        self._failures += 1
        # A refused batch is made smaller at once; everything else waits.
        again_at_once = isinstance(error, BatchRefused) and self._max_events > 1
        wait = 0.0 if again_at_once else self._delay()
        self._not_before = now + wait
        self._health.count("failures")
        self._health.error(error)
        self._health.note(f"log.{self.source.name}", str(error))
        if self._failures == 1:
            self._failing_since = now
        if self._failures == 1 or now - self._reminded > _REMIND_S:
            self._reminded = now
            log.error(
                "%s", f"not delivered, will be sent again: {error} {kv(log=self.source.name, failures=self._failures)}"
            )

    def _delay(self) -> float:
        """Seconds, with full jitter, so that a fleet spreads out."""
        longest = min(self._max_delay, _FIRST_DELAY_S * 2 ** min(self._failures - 1, 16))
        return random.uniform(0.0, longest)  # noqa: S311

    def _succeeded(self) -> None:
        if self._failures:
            seconds = round(time.monotonic() - self._failing_since, 1)
            log.info("delivering again %s", kv(log=self.source.name, after_s=seconds, failures=self._failures))
            self._failures = 0
            self._health.note(f"log.{self.source.name}", "")
