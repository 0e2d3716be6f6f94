"""A durable store-and-forward queue on SQLite. edgeml.drainer sends what is in it.

What `put` returned is on the disk: it survives kill -9 and power cuts, as far as the disk keeps what it says it has
synced. Delivery is at least once: a crash between sending and `ack` sends again.
"""

import json
import logging
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from edgeml._refusals import Refusals
from edgeml._spool_db import (
    HEADS,
    SELECT_OLDEST,
    SELECT_ONE,
    BadItemError,
    Item,
    hold_reserve,
    item_of,
)
from edgeml._spool_file import ITEM_OVERHEAD, SpoolFile
from edgeml.clock import CLOCK, Clock
from edgeml.errors import SpoolError
from edgeml.health import Scope
from edgeml.log import kv
from edgeml.pace import Pacer
from edgeml.problems import Problems

__all__ = ["ITEM_OVERHEAD", "Item", "Spool"]

log = logging.getLogger(__name__)

_DROP_LOG_S = 10.0


class Spool(SpoolFile):
    """Items of any topics in the order they were put, in one SQLite file of mode 0600. Thread-safe; for one process.

    Above `max_bytes` (sum of topic, headers, payload and ITEM_OVERHEAD of each item) the oldest items are dropped. The
    file never grows much beyond that, nor its WAL beyond 1 MiB for long; 1 MiB more is kept as `<name>-reserve`, which
    lets items be removed on a full disk. A file that is not a sound database is moved aside as
    `<name>.corrupt-<seconds>` (only the newest such file is kept) and a new spool is begun; what was in it is not
    counted as dropped, `corrupt` tells of it, and a Drainer puts back what can be read of it.

    `lane` gives the destination that a topic belongs to, the topic itself by default. Refused items go to the folder
    `<name>.quarantine`, up to `max_bytes` more. `problems` are told, about `subject`, what is wrong.

    Raises SpoolError if the file cannot be opened or made, or another process has it.
    """

    def __init__(
        self,
        path: Path,
        *,
        max_bytes: int,
        clock: Clock | Callable[[], float] = CLOCK,
        lane: Callable[[str], str] = str,
        problems: Problems | None = None,
        subject: str = "",
    ) -> None:
        super().__init__(path, max_bytes, clock, lane, problems or Problems(), subject or path.name)
        self._listeners: list[Callable[[], None]] = []
        self._unlogged_drops = 0
        self._drops_told = Pacer(_DROP_LOG_S)
        self.refusals = Refusals(self)

    def measured(self, health: Scope) -> None:
        """Show in `health` what waits, what was dropped, and what was set aside."""
        health.gauge("waiting", lambda: float(self.depth))
        health.gauge("dropped", lambda: float(self.dropped))
        health.gauge("quarantined", lambda: float(self.refusals.count))

    def put(self, topic: str, payload: bytes, *, headers: dict[str, str] | None = None) -> int:
        """Store an item durably; its id. Blocks for one fsync.

        Raises SpoolError if the item alone is above max_bytes, or if it cannot be stored (disk full): then nothing has
        changed and the older items stay.
        """
        return self.put_many(topic, [payload], headers=headers)[0]

    def put_many(self, topic: str, payloads: Iterable[bytes], *, headers: dict[str, str] | None = None) -> list[int]:
        """Store items durably, all or none, for one fsync; their ids, in order.

        Raises SpoolError as `put` does, also if the items together are above max_bytes.
        """
        now = self.clock.now()
        try:
            text, lane = json.dumps(headers or {}), self.lane(topic)
            fixed = self.size_of(topic, text, b"")
        except UnicodeEncodeError as error:
            raise SpoolError(f"spool {self.path.name}: topic {topic!r} is no text: {error}") from error
        moment = (now.boot, now.uptime, int(now.believed))
        rows = [(now.wall, fixed + len(payload), topic, text, payload, *moment) for payload in payloads]
        size = sum(row[1] for row in rows)
        if size > self.max_bytes:
            what = "an item" if len(rows) == 1 else f"{len(rows)} items"
            raise SpoolError(f"spool {self.path.name}: {what} of {size} bytes is above the cap of {self.max_bytes}")
        with self._transaction("store items") as db:
            victims = self._oldest(self._bytes + size - self.max_bytes)
            self._delete(victims, dropped=True)
            ids = [self._insert(db, lane, (None, *row)) for row in rows]
        self.problems.cleared("disk_full", self.subject)
        if not self._reserved:
            self._reserved = hold_reserve(self.path)
        if victims:
            self._log_drops(len(victims))
        for listener in self._listeners:
            listener()
        return ids

    def peek(self, limit: int = 1) -> list[Item]:
        """The oldest `limit` items, oldest first; they stay in the spool until `ack`."""
        return self._items(SELECT_OLDEST, limit)

    def oldest(self, passed_over: Collection[str] = ()) -> Item | None:
        """The oldest item of all lanes but those that are `passed_over`."""
        while passed_over:
            with self._translated("read it"):
                heads = self._db.execute(HEADS).fetchall()
            keys = [key for lane, key in heads if lane not in passed_over]
            if not keys:
                return None
            if found := self._items(SELECT_ONE, keys[0]):
                return found[0]  # else the row was no item, and is set aside now
        while self._depth:
            if found := self.peek():
                return found[0]
        return None

    def behind(self, lane: str, item_id: int) -> Item | None:
        """The next item of a lane."""
        with self._translated("read it"):
            (key,) = self._db.execute("SELECT MIN(id) FROM lanes WHERE lane = ? AND id > ?", (lane, item_id)).fetchone()
        return next(iter(self._items(SELECT_ONE, key)), None) if key is not None else None

    def _items(self, select: str, argument: int) -> list[Item]:
        with self._translated("read it"):
            rows = self._db.execute(select, (argument,))
            items = []
            for row in rows.fetchall():
                try:
                    items.append(item_of(row))
                except BadItemError as bad:
                    self.refusals.add_bad(bad)
            return items

    def oldest_age(self) -> float:
        """Seconds since the oldest item was put; 0 if there is none."""
        items = self.peek()
        if not items:
            return 0.0
        moment = items[0].moment
        return self.clock.age_s(moment) if moment else max(0.0, self.clock.unix() - items[0].created_at)

    def on_put(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each put, in the thread that put; it must not block."""
        self._listeners.append(listener)

    def _oldest(self, excess: int) -> list[int]:
        """Ids of the oldest items that together hold at least `excess` bytes."""
        victims = []
        if excess > 0:
            for key, size in self._db.execute("SELECT id, size FROM items ORDER BY id"):
                victims.append(key)
                excess -= size
                if excess <= 0:
                    break
        return victims

    def _log_drops(self, count: int) -> None:
        self._unlogged_drops += count
        if self._drops_told.take():
            facts = kv(spool=self.path.name, dropped=self._unlogged_drops, in_all=self._dropped, cap=self.max_bytes)
            log.warning("spool full, oldest items dropped %s", facts)
            self._unlogged_drops = 0
