"""The SQLite file of a spool: its schema, how it is opened and checked, and what its errors mean."""

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from edgeml.files import sync_folder

_LOCK_TIMEOUT_S = 2.0

# FULL: a commit is on the disk when it returns. In WAL mode NORMAL would lose the last commits in a power cut.
# EXCLUSIVE: no second process, and no -shm file. The WAL is copied back at 2 MiB and never stays above 4 MiB.
_SCHEMA = """
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA wal_autocheckpoint = 512;
PRAGMA journal_size_limit = 4194304;
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS items (
    id INTEGER PRIMARY KEY AUTOINCREMENT, created_at REAL NOT NULL, size INTEGER NOT NULL,
    topic TEXT NOT NULL, headers TEXT NOT NULL, payload BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT OR IGNORE INTO counters VALUES ('dropped', 0), ('corrupt', 0);
COMMIT;
"""


def connect(path: Path) -> sqlite3.Connection:
    """Open the database at `path`, made (mode 0600) if there is none, and read all of it once to see that it is sound.

    Raises sqlite3.Error and OSError; `is_unreadable` tells whether the file is beyond use.
    """
    # SQLite would take the umask's mode for the database; its -wal takes the mode of the database.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    sync_folder(path.parent)
    db = sqlite3.connect(path, timeout=_LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        db.executescript(_SCHEMA)
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            error = sqlite3.DatabaseError(verdict)
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error
    except BaseException:
        db.close()
        raise
    return db


def set_aside(path: Path, stamp: int) -> Path:
    """Move the database to `<name>.corrupt-<stamp>`, with its -wal, and remove what was moved aside before."""
    for older in path.parent.glob(f"{path.name}.corrupt-*"):
        older.unlink()
    aside = path.with_name(f"{path.name}.corrupt-{stamp}")
    path.rename(aside)
    with suppress(FileNotFoundError):
        path.with_name(f"{path.name}-wal").rename(f"{aside}-wal")
    return aside


def is_unreadable(error: BaseException) -> bool:
    """Whether `error` says that the file is not a database, or a damaged one."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def reason(error: sqlite3.Error | OSError) -> str:
    """What went wrong, in words for a log line."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return "disk full"
    if code == sqlite3.SQLITE_BUSY:
        return "another process has it open"
    return f"{error} ({getattr(error, 'sqlite_errorname', type(error).__name__)})"
