"""The SQLite file of a spool: its schema, how it is opened and checked, and what its errors mean."""

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

from edgeml.files import sync_folder

RESERVE_BYTES = 1 << 20
_LOCK_TIMEOUT_S = 2.0

# FULL: a commit is on the disk when it returns. In WAL mode NORMAL would lose the last commits in a power cut.
# EXCLUSIVE: no second process, and no -shm file. The WAL is copied back every 64 pages (256 KiB) and never stays above
# 1 MiB, so that RESERVE_BYTES are enough to copy it back on a full disk.
_SCHEMA = """
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA wal_autocheckpoint = 64;
PRAGMA journal_size_limit = 1048576;
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


def hold_reserve(path: Path) -> bool:
    """Keep RESERVE_BYTES of disk beside the database, if there is room.

    Removing an item needs a little room too. Without a reserve a spool that has filled its disk could never be emptied.
    """
    try:
        descriptor = os.open(_reserve(path), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return False
    try:
        os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
    except OSError:
        _reserve(path).unlink()
        return False
    finally:
        os.close(descriptor)
    return True


def use_reserve(path: Path, db: sqlite3.Connection) -> None:
    """Give the reserve to the database: copy the WAL back, so that it is written from its beginning again."""
    _reserve(path).unlink(missing_ok=True)
    db.execute("PRAGMA wal_checkpoint(PASSIVE)")


def _reserve(path: Path) -> Path:
    return path.with_name(f"{path.name}-reserve")


def is_full(error: BaseException | None) -> bool:
    """Whether `error` says that the disk or a quota is full."""
    return getattr(error, "sqlite_errorcode", 0) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE)


def is_unreadable(error: BaseException) -> bool:
    """Whether `error` says that the file is not a database, or a damaged one."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def reason(error: sqlite3.Error | OSError) -> str:
    """What went wrong, in words for a log line."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if is_full(error):
        return f"disk full, or no more can be written ({error})"
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
        return "another process has it open"
    return f"{error} ({getattr(error, 'sqlite_errorname', type(error).__name__)})"
