"""What has been delivered, on disk: one small SQLite database in WAL mode, one fsync a batch.

Only what CloudWatch (or the spool) has acknowledged is ever written here. A batch that was acknowledged and not yet
recorded is sent again after a crash, so at most one batch of a log is ever delivered twice.
"""

import contextlib
import logging
import os
import sqlite3
import stat
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from edgeml.log import kv
from log_shipper.errors import CheckpointError
from log_shipper.identity import Key, Mark

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS marks (
    log TEXT, device INTEGER, inode INTEGER, delivered INTEGER, head_size INTEGER, head BLOB, anchor BLOB,
    PRIMARY KEY (log, device, inode)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS cursors (log TEXT PRIMARY KEY, cursor TEXT) WITHOUT ROWID;
"""


class Checkpoint:
    """Delivered positions of all logs, by the name of the log. Thread-safe.

    A database that is not one is set aside as `<name>.corrupt` and begun anew: all is sent again, nothing is lost.
    """

    _db: sqlite3.Connection

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def open(self) -> None:
        """Open or make the database, before anything else is asked of it. Raises CheckpointError."""
        path = self._path
        with self._translated():
            _set_strangers_aside(path)
            try:
                self._db = _connect(path)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):
                    raise
                log.error("checkpoint unreadable, everything is sent again %s", kv(path=path, reason=error))
                path.replace(path.with_name(f"{path.name}.corrupt"))
                for suffix in ("-wal", "-shm"):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
                self._db = _connect(path)

    def marks(self, log_name: str) -> dict[Key, Mark]:
        query = "SELECT device, inode, delivered, head_size, head, anchor FROM marks WHERE log = ?"
        with self._lock, self._translated():
            rows = self._db.execute(query, (log_name,)).fetchall()
        return {(_unsigned(device), _unsigned(inode)): Mark(*rest) for device, inode, *rest in rows}

    def mark(self, log_name: str, key: Key) -> Mark | None:
        """How far one file has been delivered, if that is known. Raises CheckpointError."""
        query = "SELECT delivered, head_size, head, anchor FROM marks WHERE log = ? AND device = ? AND inode = ?"
        with self._lock, self._translated():
            row = self._db.execute(query, (log_name, _signed(key[0]), _signed(key[1]))).fetchone()
        return Mark(*row) if row else None

    def save(self, log_name: str, marks: Mapping[Key, Mark], forgotten: Iterable[Key] = ()) -> None:
        """Record positions durably, all or none. Raises CheckpointError."""
        rows = [(log_name, _signed(key[0]), _signed(key[1]), *found) for key, found in marks.items()]
        gone = [(log_name, _signed(key[0]), _signed(key[1])) for key in forgotten]
        with self._transaction() as db:
            db.executemany("DELETE FROM marks WHERE log = ? AND device = ? AND inode = ?", gone)
            db.executemany("INSERT OR REPLACE INTO marks VALUES (?,?,?,?,?,?,?)", rows)

    def cursor(self, log_name: str) -> str:
        """The journal cursor up to which a log has been delivered, empty if nothing has been."""
        with self._lock, self._translated():
            row = self._db.execute("SELECT cursor FROM cursors WHERE log = ?", (log_name,)).fetchone()
        return str(row[0]) if row else ""

    def save_cursor(self, log_name: str, cursor: str) -> None:
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?)", (log_name, cursor))

    def close(self) -> None:
        with self._lock:
            if hasattr(self, "_db"):
                self._db.close()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._translated():
            try:
                self._db.execute("BEGIN IMMEDIATE")
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise CheckpointError(f"cannot record progress in {self._path}: {error}") from error


def _set_strangers_aside(path: Path) -> None:
    """Never write or read through a link, or into a file that is another user's or has another name, too."""
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        file = path.with_name(name)
        try:
            status = file.lstat()
        except FileNotFoundError:
            continue
        if stat.S_ISDIR(status.st_mode) or (
            stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid == os.geteuid()
        ):
            continue
        log.error("checkpoint is not ours alone, set aside %s", kv(path=file))
        file.rename(file.with_name(f"{name}.foreign"))


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=5, isolation_level=None, check_same_thread=False)
    try:
        path.chmod(0o600)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA cache_size = -512")
        db.executescript(_SCHEMA)
    except BaseException:
        db.close()
        raise
    return db


def _signed(value: int) -> int:
    """SQLite's integers are signed; device and inode numbers use all 64 bits on some file systems."""
    return value - 2**64 if value >= 2**63 else value


def _unsigned(value: int) -> int:
    return value + 2**64 if value < 0 else value
