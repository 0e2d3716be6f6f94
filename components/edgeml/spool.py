"""A durable store-and-forward queue on SQLite: Spool, and Drainer, which sends what is in it.

What `put` returned is on the disk: it survives kill -9 and power cuts, as far as the disk keeps what it says it has
synced. Delivery is at least once: a crash between sending and `ack` sends again.
"""

import builtins
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgeml._drainer import Drainer, DrainerStats, full_jitter
from edgeml._spool_db import connect, hold_reserve, is_full, is_unreadable, reason, set_aside, use_reserve
from edgeml.errors import SpoolError
from edgeml.log import kv

__all__ = ["ITEM_OVERHEAD", "Drainer", "DrainerStats", "Item", "Spool", "full_jitter"]

log = logging.getLogger(__name__)

ITEM_OVERHEAD = 64  # bytes a row costs on disk beside topic, headers and payload
_DROP_LOG_S = 10.0


@dataclass(frozen=True, slots=True)
class Item:
    """One entry; `created_at` in seconds since the epoch. Ids rise and are never used twice."""

    id: int
    topic: str
    payload: bytes
    headers: dict[str, str]
    created_at: float


class Spool:
    """Items of any topics in the order they were put, in one SQLite file of mode 0600. Thread-safe; for one process.

    Above `max_bytes` (sum of topic, headers, payload and ITEM_OVERHEAD of each item) the oldest items are dropped. The
    file never grows much beyond that, nor its WAL beyond 1 MiB for long; 1 MiB more is kept as `<name>-reserve`, which
    lets items be removed on a full disk. A file that is not a sound database is moved aside as
    `<name>.corrupt-<seconds>` (only the newest such file is kept) and a new spool is begun; what was in it is not
    counted as dropped, `corrupt` tells of it.

    Raises SpoolError if the file cannot be opened or made, or another process has it.
    """

    def __init__(self, path: Path, *, max_bytes: int, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self._clock = clock
        self._lock = threading.RLock()
        self._listeners: list[Callable[[], None]] = []
        self._unlogged_drops = 0
        self._next_drop_log = 0.0
        self._depth = self._bytes = self._dropped = self._corrupt = 0
        self._closed = False
        with self._translated("open it"):
            try:
                self._db = self._load()
            except sqlite3.Error as error:
                if not is_unreadable(error):
                    raise
                self._db = self._begin_anew(error)
            self._reserved = hold_reserve(path)

    def put(self, topic: str, payload: builtins.bytes, *, headers: dict[str, str] | None = None) -> int:
        """Store an item durably; its id. Blocks for one fsync.

        Raises SpoolError if the item alone is above max_bytes, or if it cannot be stored (disk full): then nothing has
        changed and the older items stay.
        """
        return self.put_many(topic, [payload], headers=headers)[0]

    def put_many(
        self, topic: str, payloads: Iterable[builtins.bytes], *, headers: dict[str, str] | None = None
    ) -> list[int]:
        """Store items durably, all or none, for one fsync; their ids, in order.

        Raises SpoolError as `put` does, also if the items together are above max_bytes.
        """
        text, now = json.dumps(headers or {}), self._clock()
        fixed = len(topic.encode()) + len(text.encode()) + ITEM_OVERHEAD
        rows = [(now, fixed + len(payload), topic, text, payload) for payload in payloads]
        size = sum(row[1] for row in rows)
        if size > self.max_bytes:
            what = "an item" if len(rows) == 1 else f"{len(rows)} items"
            raise SpoolError(f"spool {self.path.name}: {what} of {size} bytes is above the cap of {self.max_bytes}")
        with self._transaction("store items") as db:
            victims = self._oldest(self._bytes + size - self.max_bytes)
            self._delete(victims, dropped=True)
            insert = "INSERT INTO items (created_at, size, topic, headers, payload) VALUES (?,?,?,?,?)"
            ids = [int(db.execute(insert, row).lastrowid or 0) for row in rows]
            self._depth += len(rows)
            self._bytes += size
        if not self._reserved:
            self._reserved = hold_reserve(self.path)
        if victims:
            self._log_drops(len(victims))
        for listener in self._listeners:
            listener()
        return ids

    def peek(self, limit: int = 1) -> list[Item]:
        """The oldest `limit` items, oldest first; they stay in the spool until `ack`."""
        query = "SELECT id, topic, payload, headers, created_at FROM items ORDER BY id LIMIT ?"
        with self._translated("read it"):
            rows = self._db.execute(query, (limit,)).fetchall()
        return [Item(key, topic, payload, json.loads(text), at) for key, topic, payload, text, at in rows]

    def ack(self, item_ids: Iterable[int]) -> None:
        """Remove items that have been delivered. Ids that are gone already are no error."""
        self._remove(list(item_ids), dropped=False)

    def discard(self, item_ids: Iterable[int]) -> None:
        """Remove items that cannot be delivered and count them as dropped."""
        self._remove(list(item_ids), dropped=True)

    @property
    def depth(self) -> int:
        """Number of items."""
        return self._depth

    @property
    def bytes(self) -> int:
        """Sum of the sizes of all items, as `max_bytes` counts them."""
        return self._bytes

    @property
    def dropped(self) -> int:
        """Items lost in the life of the file (kept in it): above the cap, or discarded."""
        return self._dropped

    @property
    def corrupt(self) -> int:
        """Databases that were moved aside before this one or in its place."""
        return self._corrupt

    def oldest_age(self) -> float:
        """Seconds since the oldest item was put; 0 if there is none."""
        with self._translated("read it"):
            row = self._db.execute("SELECT created_at FROM items ORDER BY id LIMIT 1").fetchone()
        return max(0.0, self._clock() - row[0]) if row else 0.0

    def on_put(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each put, in the thread that put; it must not block."""
        self._listeners.append(listener)

    def close(self) -> None:
        """Close the file; every later call raises SpoolError."""
        with self._lock:
            self._closed = True
            self._db.close()

    def _load(self) -> sqlite3.Connection:
        """Open the database and count what is in it."""
        db = connect(self.path)
        self._depth, self._bytes = db.execute("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM items").fetchone()
        counters = dict(db.execute("SELECT name, value FROM counters").fetchall())
        self._dropped = max(self._dropped, counters["dropped"])
        self._corrupt = max(self._corrupt, counters["corrupt"])
        if self._corrupt != counters["corrupt"]:
            db.execute("UPDATE counters SET value = ? WHERE name = 'corrupt'", (self._corrupt,))
        return db

    def _begin_anew(self, error: sqlite3.Error) -> sqlite3.Connection:
        """A new database in place of one that `error` says is unreadable."""
        aside = set_aside(self.path, int(self._clock()))
        self._corrupt += 1
        log.error("spool unreadable, begun anew %s", kv(path=self.path, reason=error, moved_to=aside.name))
        return self._load()

    @contextmanager
    def _transaction(self, what: str) -> Iterator[sqlite3.Connection]:
        """One commit; on failure the database and the counts in memory are as before."""
        with self._translated(what):
            before = (self._depth, self._bytes, self._dropped)
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                self._depth, self._bytes, self._dropped = before
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Hold the lock; turn the errors of SQLite and of the file system into SpoolError."""
        with self._lock:
            if self._closed:
                raise SpoolError(f"spool {self.path.name} is closed")
            try:
                yield
            except (sqlite3.Error, OSError) as error:
                if isinstance(error, sqlite3.Error) and is_unreadable(error):
                    self._db.close()
                    self._db = self._begin_anew(error)
                raise SpoolError(f"spool {self.path}: cannot {what}: {reason(error)}") from error

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

    def _remove(self, item_ids: list[int], *, dropped: bool) -> None:
        try:
            with self._transaction("remove items"):
                self._delete(item_ids, dropped=dropped)
        except SpoolError as error:
            if not (self._reserved and is_full(error.__cause__)):
                raise
            self._reserved = False
            with self._translated("remove items"):
                use_reserve(self.path, self._db)
            with self._transaction("remove items"):
                self._delete(item_ids, dropped=dropped)

    def _delete(self, item_ids: Iterable[int], *, dropped: bool) -> None:
        for key in item_ids:
            row = self._db.execute("SELECT size FROM items WHERE id = ?", (key,)).fetchone()
            if row is not None:
                self._db.execute("DELETE FROM items WHERE id = ?", (key,))
                self._depth -= 1
                self._bytes -= row[0]
                self._dropped += dropped
        if dropped:
            self._db.execute("UPDATE counters SET value = ? WHERE name = 'dropped'", (self._dropped,))

    def _log_drops(self, count: int) -> None:
        self._unlogged_drops += count
        if time.monotonic() >= self._next_drop_log:
            self._next_drop_log = time.monotonic() + _DROP_LOG_S
            facts = kv(spool=self.path.name, dropped=self._unlogged_drops, in_all=self._dropped, cap=self.max_bytes)
            log.warning("spool full, oldest items dropped %s", facts)
            self._unlogged_drops = 0
