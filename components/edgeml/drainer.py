"""The thread that empties a spool, and what `send` may say of an item."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from edgeml.backoff import Backoff
from edgeml.errors import RefusedError, SpoolError, Undeliverable
from edgeml.log import kv
from edgeml.pace import Throttle, worth_telling
from edgeml.spool import Item, Spool

log = logging.getLogger("edgeml.spool")

REFUSALS = 3  # answers "no" until an item is set aside
DOUBTS, DOUBT_S = 10, 60.0  # failures, and seconds, of one lane while others are taken, until that counts as a "no"
AT_ONCE_S = 1.0  # an answer; what takes longer is a network that may be back by now
TELL_AFTER = 5  # failures in a row until a lane is said to be unreachable
_IDLE_S = 60.0


class Held(Exception):  # noqa: N818  (nothing is wrong)
    """This item is to wait for `seconds`, and with it those behind it in its lane."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"held for {seconds:g} s")
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class DrainerStats:
    """`sent`, `failed` (attempts) and `refused` (items) count since the start; `dropped` is the spool's."""

    sent: int
    failed: int
    dropped: int
    depth: int
    oldest_age_s: float
    refused: int = 0


@dataclass
class _Lane:
    """A destination that failed: how often in a row, what its oldest item was told, and when to try it again."""

    failures: int = 0
    refusals: int = 0
    closed: bool = False  # an item was set aside and none taken since: one more "no" is enough for the next
    doubts: int = 0  # failures while other lanes were taken: perhaps an answer without words
    doubted_at: float = 0.0
    sent_before: int = 0
    ready_at: float = 0.0


def _pause(failures: int) -> float:
    return Backoff(failures=failures - 1).next()


class Drainer:
    """One thread that passes the items of a spool to `send`, oldest first, from now until `stop`.

    An item leaves the spool when `send` returns. A `transient` exception is an outage: the same item is tried again
    after `backoff(n)` seconds, n being the failures in a row, for ever; only its own lane waits. RefusedError, and any
    exception that nobody expected, is an answer: after REFUSALS of them the item goes to the spool's quarantine, which
    is put back once at the start and with `again`. A core that says neither (Nucleus Lite) is understood by what it
    does with other lanes, or with the next item of the lane, while this one fails again and again.
    `Undeliverable` drops the item, `Held` lets it wait.
    """

    def __init__(
        self,
        spool: Spool,
        send: Callable[[Item], None],
        *,
        transient: tuple[type[Exception], ...],
        backoff: Callable[[int], float] = _pause,
    ) -> None:
        self._spool, self._send, self._transient, self._backoff = spool, send, transient, backoff
        self._sent = self._failed = self._refused = 0
        self._delivered: set[int] = set()  # sent, and not yet removed
        self._lanes: dict[str, _Lane] = {}
        self._failed_last = ""
        self._told: set[tuple[str, str]] = set()
        self._unlogged, self._unlogged_drops = Throttle(), Throttle()
        self._rescued = False
        self._to_put_back = spool.refusals.quarantine.names
        self._again = threading.Event()
        self._work = threading.Event()
        self._stopping = threading.Event()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name=f"drain {spool.path.name}", daemon=True)
        spool.on_put(self._work.set)
        self._thread.start()

    @property
    def stats(self) -> DrainerStats:
        spool = self._spool
        return DrainerStats(self._sent, self._failed, spool.dropped, spool.depth, spool.oldest_age(), self._refused)

    def again(self) -> None:
        """Something changed: try everything anew at once, the quarantined items too."""
        self._again.set()
        self._work.set()

    def stop(self, flush_timeout: float) -> bool:
        """Go on until all lanes are empty or fail, at most `flush_timeout` seconds; False if it hangs in `send`.

        The thread does not keep the process alive, and the item it has in hand stays in the spool.
        """
        self._deadline = time.monotonic() + flush_timeout
        self._stopping.set()
        self._work.set()
        self._thread.join(timeout=flush_timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        last_round = False
        failures = 0
        while time.monotonic() < self._deadline:
            self._work.clear()
            if self._stopping.is_set() and not last_round:
                last_round = True  # each lane gets one more attempt
                for lane in self._lanes.values():
                    lane.ready_at = 0.0
            try:
                item = self._next()
                if item is not None:
                    self._attempt(item)
                failures = 0
            except SpoolError as error:
                failures += 1
                self._failed += 1
                log.error("%s", error)
                if last_round or self._spool.closed:
                    return
                self._stopping.wait(self._backoff(failures))
                continue
            if item is None:
                if last_round:
                    return
                self._work.wait(self._pause())

    def _next(self) -> Item | None:
        """The oldest item of a lane that need not wait. Raises SpoolError."""
        if self._again.is_set():
            self._again.clear()
            self._lanes.clear()
            for code, subject in self._told:
                self._spool.problems.cleared(code, subject)
            self._told.clear()
            self._to_put_back = self._spool.refusals.quarantine.names
            self._rescued = False
        self._restore()
        now = time.monotonic()
        waiting = {name for name, lane in self._lanes.items() if lane.ready_at > now}
        failed, self._failed_last = self._failed_last, ""  # a lane that fails at once leaves a turn to the others
        if failed:
            return self._spool.oldest({*waiting, failed}) or self._spool.oldest(waiting)
        return self._spool.oldest(waiting)

    def _restore(self) -> None:
        """Put back what a damaged file and the quarantine hold; where that fails the queue goes on without."""
        try:
            if not self._rescued:
                self._rescued = True
                self._spool.refusals.rescue()
            if self._to_put_back:
                self._to_put_back = self._spool.refusals.put_back(self._to_put_back)
        except SpoolError as error:
            self._to_put_back = []
            log.error("not put back %s", kv(spool=self._spool.path.name, reason=error))

    def _pause(self) -> float:
        due = min((lane.ready_at for lane in self._lanes.values()), default=float("inf"))
        return max(0.0, min(_IDLE_S, due - time.monotonic()))

    def _attempt(self, item: Item) -> None:
        """Deliver `item`, and note what came of it."""
        name, began = self._spool.lane(item.topic), time.monotonic()
        try:
            if item.id not in self._delivered:  # else it was sent, and only its removal failed
                self._send(item)
                self._delivered.add(item.id)
                self._sent += 1
            self._spool.ack([item.id])
            self._delivered.discard(item.id)
        except Held as held:
            self._lanes.setdefault(name, _Lane()).ready_at = self._later(held.seconds)
        except Undeliverable as error:
            if self._unlogged_drops.due():
                facts = kv(
                    spool=self._spool.path.name, topic=item.topic, reason=error, times=self._unlogged_drops.count
                )
                log.error("item dropped %s", facts)
            self._spool.discard([item.id])
        except RefusedError as error:
            self._no(name, item, error)
        except self._transient as error:
            self._down(name, item, error, time.monotonic() - began)
        except SpoolError as error:
            log.error("%s", error)
            self._wait(name)
        except Exception as error:  # a mistake in `send` must not end delivery for good, unseen
            log.exception("delivery failed unexpectedly %s", kv(spool=self._spool.path.name))
            self._no(name, item, error)
        else:
            self._lanes.pop(name, None)
            self._clear(name)

    def _no(self, name: str, item: Item, error: Exception) -> None:
        """The receiver said no."""
        lane = self._wait(name)
        lane.refusals += 1
        if self._unlogged.due():
            facts = kv(spool=self._spool.path.name, topic=item.topic, reason=error, times=self._unlogged.count)
            log.warning("delivery refused %s", facts)
        if lane.refusals >= REFUSALS or lane.closed:
            self._set_aside(name, lane, item, error)

    def _down(self, name: str, item: Item, error: Exception, took_s: float) -> None:
        """An outage; or an answer that cannot be told from one, when other lanes are taken again and again."""
        lane, now = self._wait(name), time.monotonic()
        if lane.failures == 1:
            lane.doubted_at, lane.sent_before = now, self._sent
        if worth_telling(lane.failures):
            facts = kv(spool=self._spool.path.name, lane=name, reason=error, times=lane.failures)
            log.warning("delivery failed, will be repeated %s", facts)
        if lane.failures == TELL_AFTER:
            self._tell("unreachable", name, f"{name}: {error}")
        if self._sent > lane.sent_before:
            lane.sent_before = self._sent
            lane.doubts += 1
        if now - lane.doubted_at < DOUBT_S:
            return
        if lane.doubts >= DOUBTS:
            lane.doubts = 0
            self._set_aside(name, lane, item, error)
        elif lane.failures >= DOUBTS and took_s < AT_ONCE_S:
            self._ask_with_the_next(name, lane, item)

    def _ask_with_the_next(self, name: str, lane: _Lane, item: Item) -> None:
        """Is it this item, or the way? Where the one behind it is taken, and this one then is not, it is the item."""
        behind = self._spool.behind(name, item.id)
        if behind is None:
            return
        try:
            self._send(behind)
        except Exception as error:  # noqa: BLE001  (it is only a question; the item is sent again in its turn)
            log.debug("the next is not taken either %s", kv(lane=name, reason=error))
            return
        self._sent += 1
        self._delivered.add(behind.id)
        self._spool.ack([behind.id])
        self._delivered.discard(behind.id)
        lane.doubts += DOUBTS // 3
        lane.ready_at = 0.0

    def _set_aside(self, name: str, lane: _Lane, item: Item, error: Exception) -> None:
        attempts = max(lane.refusals, lane.failures)
        try:
            self._spool.refusals.add(item, error, attempts)
        except SpoolError as problem:  # it stays where it is; others pass
            log.error("%s", problem)
            return
        self._refused += 1
        lane.refusals, lane.closed, lane.ready_at = 0, True, 0.0
        self._tell("refused", name, f"{name}: {error}")

    def _wait(self, name: str) -> _Lane:
        lane = self._lanes.setdefault(name, _Lane())
        self._failed_last = name
        self._failed += 1
        lane.failures += 1
        # New items do not cut this short: they would turn the backoff into a storm.
        lane.ready_at = self._later(self._backoff(lane.failures))
        return lane

    def _later(self, seconds: float) -> float:
        return float("inf") if self._stopping.is_set() else time.monotonic() + seconds

    def _tell(self, code: str, name: str, text: str) -> None:
        subject = f"{self._spool.subject}.{name}"
        if (code, subject) not in self._told:
            self._told.add((code, subject))
            self._spool.problems.found(code, subject, text)

    def _clear(self, name: str) -> None:
        subject = f"{self._spool.subject}.{name}"
        for code in ("refused", "unreachable"):
            if (code, subject) in self._told:
                self._told.discard((code, subject))
                self._spool.problems.cleared(code, subject)
