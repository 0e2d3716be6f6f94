"""What leaves a spool's queue undelivered, and how it comes back: refused items, and what a damaged file held."""

import itertools
import json
import logging
import sqlite3
import time
from pathlib import Path
from typing import Any

from edgeml import _rescue
from edgeml._spool_db import BadItemError, Item, asides, counters, item_of
from edgeml._spool_file import SpoolFile
from edgeml.errors import SpoolError
from edgeml.log import kv
from edgeml.quarantine import Entry, Quarantine

log = logging.getLogger("edgeml.spool")

_BATCH = 100  # items put back in one transaction


class Refusals:
    """The quarantine of `spool`. Everything that moves an item holds the spool's lock: it is always in one place."""

    def __init__(self, spool: SpoolFile) -> None:
        self._spool = spool
        folder = spool.path.with_name(f"{spool.path.name}.quarantine")
        self.quarantine = Quarantine(folder, max_bytes=spool.max_bytes)
        self._tell()

    @property
    def count(self) -> int:
        return self.quarantine.count

    def add(self, item: Item, reason: object, attempts: int) -> None:
        """Move `item` from the queue to the quarantine. Raises SpoolError if it cannot be written there."""
        moment = item.moment
        note: dict[str, Any] = {"id": item.id, "topic": item.topic, "headers": item.headers}
        note |= {"created_at": item.created_at, "reason": str(reason), "attempts": attempts}
        if moment is not None:
            note |= {"boot": moment.boot, "uptime": moment.uptime, "believed": moment.believed}
        with self._spool._lock:
            self._keep(note, item.payload)
            self._spool.ack([item.id])
        self._tell()

    def add_bad(self, bad: BadItemError) -> None:
        """Move a row that is no item; it is never put back."""
        note = {"id": bad.id, "topic": bad.topic, "headers": bad.headers, "created_at": 0.0, "reason": str(bad)}
        with self._spool._lock:
            self._keep({**note, "unreadable": True}, bad.payload)
            self._spool.ack([bad.id])
        log.error("item set aside %s", kv(spool=self._spool.path.name, item=bad.id, topic=bad.topic, reason=bad))
        self._tell()

    def put_back(self, names: list[str]) -> list[str]:
        """Queue some of the entries `names` again, where they were; those that are still to be put back.

        The queue is filled to half its cap at most: what is queued must not push out what was put back.
        """
        spool = self._spool
        with spool._lock:
            batch: list[Entry] = []
            size, done = spool.size_bytes, 0
            for name in names[:_BATCH]:
                entry = self.quarantine.read(name)
                if entry is None:
                    self.quarantine.forget(name)
                elif not entry.note.get("unreadable"):
                    size += len(entry.payload)
                    if size > spool.max_bytes // 2 and spool.depth:
                        break
                    batch.append(entry)
                done += 1
            if batch:
                with spool._transaction("put items back") as db:
                    for entry in batch:
                        self._insert(db, entry)
                for entry in batch:
                    self.quarantine.remove(entry.name)
                log.info("refused items queued again %s", kv(spool=spool.path.name, items=len(batch)))
        self._tell()
        return names[done:]

    def rescue(self) -> None:
        """Put back what can be read of a file that was damaged and moved aside, unless that was done before.

        Raises SpoolError; it is then tried again.
        """
        spool = self._spool
        with spool._translated("read it"):
            found = counters(spool._db)
        if found.get("rescued", found["corrupt"]) >= found["corrupt"]:
            return
        rescued = 0
        for aside in asides(spool.path):
            try:
                rows = _rescue.rows(aside)
                while batch := list(itertools.islice(rows, _BATCH)):
                    rescued += self._rescue(aside, batch)
            except (OSError, sqlite3.Error) as error:
                raise SpoolError(f"{aside}: {error}") from error
        with spool._transaction("put items back") as db:
            db.execute("UPDATE counters SET value = ? WHERE name = 'rescued'", (found["corrupt"],))
        text = f"{spool.path.name} was damaged; {rescued} items of it could be read and are sent"
        spool.problems.found("spool_damaged", spool.subject, text)

    def _rescue(self, aside: Path, rows: list[tuple[Any, ...]]) -> int:
        spool, rescued = self._spool, 0
        with spool._transaction("put items back") as db:
            for key, created_at, _, topic, headers, payload in rows:
                try:
                    item = item_of((key, topic, payload, headers, created_at, None, None, None))
                except BadItemError as bad:
                    log.error("item of a damaged spool passed over %s", kv(file=aside.name, item=key, reason=bad))
                    continue
                size = spool.size_of(item.topic, json.dumps(item.headers), item.payload)
                if spool.size_bytes + size <= spool.max_bytes:
                    note = {"id": key, "topic": item.topic, "headers": item.headers, "created_at": item.created_at}
                    self._insert(db, Entry("", note, item.payload))
                    rescued += 1
        return rescued

    def _insert(self, db: sqlite3.Connection, entry: Entry) -> None:
        """With its own id, so that it is in its old place; nothing happens where it is there already."""
        spool, note = self._spool, entry.note
        key, at = note["id"], float(note.get("created_at", 0.0))
        there = db.execute("SELECT created_at FROM items WHERE id = ?", (key,)).fetchone()
        if there is not None and there[0] == at:
            return
        headers = json.dumps(note.get("headers") or {})
        moment = [note.get(name) for name in ("boot", "uptime", "believed")]
        size = spool.size_of(note["topic"], headers, entry.payload)
        row = (None if there else key, at, size, note["topic"], headers, entry.payload, *moment)
        spool._insert(db, spool.lane(note["topic"]), row)

    def _keep(self, note: dict[str, Any], payload: bytes) -> None:
        spool = self._spool
        self.quarantine.max_bytes = spool.max_bytes
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(spool.clock.unix()))
        try:
            gone = self.quarantine.add({**note, "refused_at": now}, payload)
        except OSError as error:
            raise SpoolError(f"{self.quarantine.folder}: {error.strerror or error}") from error
        if gone:
            log.error("quarantine full, oldest items dropped %s", kv(folder=self.quarantine.folder, dropped=gone))
            spool.count_dropped(gone)

    def _tell(self) -> None:
        spool = self._spool
        if self.count:
            text = f"refused or unreadable items wait in {self.quarantine.folder}, each with its reason"
            spool.problems.found("quarantined", spool.subject, text)
        else:
            spool.problems.cleared("quarantined", spool.subject)
