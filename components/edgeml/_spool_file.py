"""The file of a spool while it is open: its transactions and counts, and a new one in place of a damaged one."""

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeml._spool_db import (
    INSERT,
    connect,
    counters,
    fill_lanes,
    hold_reserve,
    is_full,
    is_unreadable,
    reason,
    set_aside,
    use_reserve,
)
from edgeml.clock import Clock
from edgeml.errors import SpoolError
from edgeml.log import kv
from edgeml.problems import Problems

log = logging.getLogger("edgeml.spool")

ITEM_OVERHEAD = 64  # bytes a row costs on disk beside topic, headers and payload


class SpoolFile:
    """What a Spool stands on. Raises SpoolError when made and from every method. Thread-safe."""

    def __init__(
        self,
        path: Path,
        max_bytes: int,
        clock: Clock | Callable[[], float],
        lane: Callable[[str], str],
        problems: Problems,
        subject: str,
    ) -> None:
        self.path, self.max_bytes, self.lane = path, max_bytes, lane
        self.problems, self.subject = problems, subject
        self.clock = clock if isinstance(clock, Clock) else Clock(wall=clock, uptime=clock, vouched=lambda: True)
        self.closed = False
        self._lock = threading.RLock()
        self._depth = self._bytes = self._dropped = self._corrupt = 0
        with self._translated("open it"):
            try:
                self._db = self._load()
            except sqlite3.Error as error:
                if not is_unreadable(error, opening=True):
                    raise
                self._db = self._begin_anew(error)
            self._reserved = hold_reserve(path)

    def close(self) -> None:
        """Close the file; every later call raises SpoolError."""
        with self._lock:
            self.closed = True
            self._db.close()

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
    def size_bytes(self) -> int:
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

    def count_dropped(self, items: int) -> None:
        """Count items that were lost outside the queue."""
        with self._transaction("count") as db:
            self._dropped += items
            db.execute("UPDATE counters SET value = ? WHERE name = 'dropped'", (self._dropped,))

    def _load(self) -> sqlite3.Connection:
        """Open the database and count what is in it."""
        try:
            db = connect(self.path)
        except sqlite3.Error as error:
            if not is_full(error):
                raise
            use_reserve(self.path, None)
            db = connect(self.path)
        try:
            found = counters(db)
            self._depth, self._bytes = fill_lanes(db, self.lane)
            self._dropped, self._corrupt = max(self._dropped, found["dropped"]), max(self._corrupt, found["corrupt"])
            if self._corrupt != found["corrupt"]:
                db.execute("UPDATE counters SET value = ? WHERE name = 'corrupt'", (self._corrupt,))
                # Beyond all ids of the former file: what is read of it comes before what is put from now on.
                db.execute("INSERT OR REPLACE INTO counters VALUES ('rescued', ?)", (self._corrupt - 1,))
                db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('items', ?)", (self._corrupt << 40,))
        except BaseException:
            db.close()
            raise
        return db

    def _begin_anew(self, error: sqlite3.Error) -> sqlite3.Connection:
        """A new database in place of one that `error` says is unreadable."""
        aside = set_aside(self.path, int(self.clock.unix()))
        self._corrupt += 1
        log.error("spool unreadable, begun anew %s", kv(path=self.path, reason=error, moved_to=aside.name))
        self.problems.found("spool_damaged", self.subject, f"{self.path.name} was damaged and is now {aside.name}")
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
            if self.closed:
                raise SpoolError(f"spool {self.path.name} is closed")
            try:
                yield
            except (sqlite3.Error, OSError) as error:
                if isinstance(error, sqlite3.Error) and is_unreadable(error):
                    self._db.close()
                    self._db = self._begin_anew(error)
                if is_full(error):
                    text = f"{self.path.name}: cannot {what}: the disk is full, or no more may be written"
                    self.problems.found("disk_full", self.subject, text)
                raise SpoolError(f"spool {self.path}: cannot {what}: {reason(error)}") from error

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

    @staticmethod
    def size_of(topic: str, headers: str, payload: bytes) -> int:
        """What an item counts against `max_bytes`; `headers` is their JSON."""
        return len(topic.encode()) + len(headers.encode()) + len(payload) + ITEM_OVERHEAD

    def _insert(self, db: sqlite3.Connection, lane: str, row: tuple[Any, ...]) -> int:
        """Add a row (id, created_at, size, topic, headers, payload, boot, uptime, believed); its id."""
        key = int(db.execute(INSERT, row).lastrowid or 0)
        db.execute("INSERT INTO lanes VALUES (?, ?)", (key, lane))
        self._depth += 1
        self._bytes += row[2]
        return key

    def _delete(self, item_ids: Iterable[int], *, dropped: bool) -> None:
        for key in item_ids:
            row = self._db.execute("SELECT size FROM items WHERE id = ?", (key,)).fetchone()
            if row is not None:
                self._db.execute("DELETE FROM items WHERE id = ?", (key,))
                self._db.execute("DELETE FROM lanes WHERE id = ?", (key,))
                self._depth -= 1
                self._bytes -= row[0]
                self._dropped += dropped
        if dropped:
            self._db.execute("UPDATE counters SET value = ? WHERE name = 'dropped'", (self._dropped,))
