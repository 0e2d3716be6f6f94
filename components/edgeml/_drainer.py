"""The thread that empties a spool: edgeml.spool.Drainer."""

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgeml.errors import SpoolError, Undeliverable
from edgeml.log import kv

if TYPE_CHECKING:
    from edgeml.spool import Item, Spool

log = logging.getLogger("edgeml.spool")

_IDLE_S = 60.0
_BACKOFF_BASE_S, _BACKOFF_CAP_S = 0.5, 60.0


@dataclass(frozen=True, slots=True)
class DrainerStats:
    """`sent` and `failed` (attempts) count since the start of the process; `dropped` is the spool's."""

    sent: int
    failed: int
    dropped: int
    depth: int
    oldest_age_s: float


def full_jitter(failures: int) -> float:
    """Seconds to wait after the nth failure in a row: uniform in 0 to min(60, 0.5 * 2**(n-1)), for fleets."""
    return random.uniform(0.0, min(_BACKOFF_CAP_S, _BACKOFF_BASE_S * 2 ** min(failures - 1, 16)))  # noqa: S311


class Drainer:
    """One thread that passes the items of a spool to `send`, oldest first, from now until `stop`.

    An item leaves the spool when `send` returns. A `transient` exception tries the same item again after
    `backoff(n)` seconds, n being the failures in a row, for ever. `Undeliverable` drops the item.
    """

    def __init__(
        self,
        spool: "Spool",
        send: "Callable[[Item], None]",
        *,
        transient: tuple[type[Exception], ...],
        backoff: Callable[[int], float] = full_jitter,
    ) -> None:
        self._spool, self._send, self._transient, self._backoff = spool, send, transient, backoff
        self._sent = self._failed = 0
        self._delivered: Item | None = None
        self._work = threading.Event()
        self._stopping = threading.Event()
        self._deadline = float("inf")
        self._thread = threading.Thread(target=self._run, name=f"drain {spool.path.name}", daemon=True)
        spool.on_put(self._work.set)
        self._thread.start()

    @property
    def stats(self) -> DrainerStats:
        spool = self._spool
        return DrainerStats(self._sent, self._failed, spool.dropped, spool.depth, spool.oldest_age())

    def stop(self, flush_timeout: float) -> bool:
        """Go on until the spool is empty or `send` fails, at most `flush_timeout` seconds; False if it hangs in `send`.

        The thread does not keep the process alive, and the item it has in hand stays in the spool.
        """
        self._deadline = time.monotonic() + flush_timeout
        self._stopping.set()
        self._work.set()
        self._thread.join(timeout=flush_timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        failures = 0
        while time.monotonic() < self._deadline:
            self._work.clear()
            stopping = self._stopping.is_set()  # asked first: what was put before stop() is still seen below
            if not self._attempt():
                failures += 1
                if self._stopping.is_set():
                    return
                # New items do not cut this short: they would turn the backoff into a storm.
                self._stopping.wait(self._backoff(failures))
            else:
                failures = 0
                if self._spool.depth == 0:
                    if stopping:
                        return
                    self._work.wait(_IDLE_S)

    def _attempt(self) -> bool:
        """Deliver the oldest item, if there is one; False if that failed."""
        try:
            for item in self._spool.peek():
                self._deliver(item)
        except self._transient as error:
            log.warning("delivery failed, will be repeated %s", kv(spool=self._spool.path.name, reason=error))
        except SpoolError as error:
            log.error("%s", error)
        except Exception:  # a mistake in `send` must not end delivery for good, unseen: it is shown and retried
            log.exception("delivery failed unexpectedly, will be repeated %s", kv(spool=self._spool.path.name))
        else:
            return True
        self._failed += 1
        return False

    def _deliver(self, item: "Item") -> None:
        if item != self._delivered:  # else it was sent, and only its removal failed
            try:
                self._send(item)
            except Undeliverable as error:
                log.error("item dropped %s", kv(spool=self._spool.path.name, topic=item.topic, reason=error))
                self._spool.discard([item.id])
                return
            self._delivered = item
            self._sent += 1
        self._spool.ack([item.id])
        self._delivered = None
