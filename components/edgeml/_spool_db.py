"""The SQLite file of a spool: its schema, how it is opened and checked, its rows, and what its errors mean."""

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeml import sqlite_codes
from edgeml.clock import Moment
from edgeml.files import sync_folder
from edgeml.sqlite_codes import result_code

RESERVE_BYTES = 1 << 20
_LOCK_TIMEOUT_S = 2.0

# FULL: a commit is on the disk when it returns. In WAL mode NORMAL would lose the last commits in a power cut.
# EXCLUSIVE: no second process, and no -shm file. The WAL is copied back every 64 pages (256 KiB) and never stays above
# 1 MiB, so that RESERVE_BYTES are enough to copy it back on a full disk.
_PRAGMAS = """
PRAGMA locking_mode = EXCLUSIVE;
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
PRAGMA wal_autocheckpoint = 64;
PRAGMA journal_size_limit = 1048576;
PRAGMA temp_store = MEMORY;
"""
SCHEMA = """
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS items (
    id INTEGER PRIMARY KEY AUTOINCREMENT, created_at REAL NOT NULL, size INTEGER NOT NULL,
    topic TEXT NOT NULL, headers TEXT NOT NULL, payload BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT OR IGNORE INTO counters VALUES ('dropped', 0), ('corrupt', 0);
COMMIT;
"""
# Added to files of version 1.0, which go on with them when a device is rolled back.
_MOMENT = {"boot": "TEXT", "uptime": "REAL", "believed": "INTEGER"}
_OBJECTS = "SELECT type, name, tbl_name, rootpage, sql FROM sqlite_master WHERE type <> 'trigger' ORDER BY rowid"
_SELECT = "SELECT id, topic, payload, headers, created_at, boot, uptime, believed FROM items "
SELECT_OLDEST = _SELECT + "ORDER BY id LIMIT ?"
SELECT_ONE = _SELECT + "WHERE id = ?"
INSERT = (
    "INSERT INTO items (id, created_at, size, topic, headers, payload, boot, uptime, believed) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
# In memory, and part of every transaction: which items each lane holds.
_LANES = """
CREATE TEMP TABLE lanes (id INTEGER PRIMARY KEY, lane TEXT NOT NULL);
CREATE INDEX temp.by_lane ON lanes (lane, id);
"""
# The oldest item of each lane; one step of the recursion for each lane, and none for each item.
HEADS = """
WITH RECURSIVE each(lane) AS (
    SELECT MIN(lane) FROM lanes
    UNION ALL SELECT (SELECT MIN(lane) FROM lanes WHERE lane > each.lane) FROM each WHERE each.lane IS NOT NULL
)
SELECT lane, (SELECT MIN(id) FROM lanes WHERE lanes.lane = each.lane) AS head
FROM each WHERE lane IS NOT NULL ORDER BY head
"""


@dataclass(frozen=True, slots=True)
class Item:
    """One entry; `created_at` in seconds since the epoch. Ids rise and are never used twice.

    `moment` is when it was put, in both clocks; None for an item of version 1.0.
    """

    id: int
    topic: str
    payload: bytes
    headers: dict[str, str]
    created_at: float
    moment: Moment | None = field(default=None, compare=False)


class BadItemError(ValueError):
    """A row that is no item. `text` and `payload` are what can be read of it."""

    def __init__(self, row: tuple[Any, ...], reason: object) -> None:
        super().__init__(f"unreadable: {reason}")
        self.id = int(row[0])
        self.topic, self.payload = _printable(row[1]), row[2] if isinstance(row[2], bytes) else str(row[2]).encode()
        self.headers = {"raw": _printable(row[3])}


def _printable(value: object) -> str:
    return str(value).encode(errors="surrogateescape").decode(errors="replace")


def item_of(row: tuple[Any, ...]) -> Item:
    """A row of COLUMNS as an Item. Raises BadItemError."""
    key, topic, payload, headers, created_at, boot, uptime, believed = row
    try:
        table = json.loads(headers)
        topic.encode()  # raises for what was no UTF-8
        if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
            raise ValueError("headers are no table of texts")
        if not isinstance(payload, bytes):
            raise TypeError(f"payload is {type(payload).__name__}")
        at = float(created_at)
        known = isinstance(boot, str) and isinstance(uptime, float)
        moment = Moment(boot, uptime, at, bool(believed)) if known else None
        return Item(key, topic, payload, table, at, moment)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise BadItemError(row, error) from error


def connect(path: Path) -> sqlite3.Connection:
    """Open the database at `path`, made (mode 0600) if there is none, and read all of it once to see that it is sound.

    Raises sqlite3.Error and OSError; `is_unreadable` tells whether
    the file is beyond use.
    """
    # SQLite would take the umask's mode for the database; its -wal takes the mode of the database.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
    sync_folder(path.parent)
    db = sqlite3.connect(path, timeout=_LOCK_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        db.text_factory = text  # a damaged one must not be an error
        db.executescript(_PRAGMAS)
        _check(db)
        db.executescript(SCHEMA)
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise damaged(verdict)
        _complete(db)
        db.executescript(_LANES)
    except BaseException as error:
        db.close()
        if isinstance(error, UnicodeError):  # in a message of SQLite that quotes the schema
            raise damaged(f"its schema is no text: {error}") from error
        raise
    return db


def text(raw: bytes) -> str:
    """Text of a database; bytes that are no UTF-8 become surrogates."""
    return raw.decode(errors="surrogateescape")


def _check(db: sqlite3.Connection) -> None:
    """Compare the schema with ours. One flipped bit renames a table, and another one would silently be made.

    Raises sqlite3.DatabaseError.
    """
    found = db.execute(_OBJECTS).fetchall()
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as empty:
        empty.executescript(SCHEMA)
        expected = empty.execute(_OBJECTS).fetchall()
    # Columns may have been added at the end.
    same = [(*f[:-1], str(f[-1]).startswith(str(e[-1]).rstrip("\n)"))) for f, e in zip(found, expected, strict=False)]
    if found and (len(found) != len(expected) or same != [(*e[:-1], True) for e in expected]):
        raise damaged("its schema is not that of a spool")


def _complete(db: sqlite3.Connection) -> None:
    """Add the columns that version 1.0 did not have."""
    present = [row[1] for row in db.execute("PRAGMA table_info(items)")]
    if not set(present[6:]) <= _MOMENT.keys():
        raise damaged("its schema is not that of a spool")
    for name, kind in _MOMENT.items():
        if name not in present:
            db.execute(f"ALTER TABLE items ADD COLUMN {name} {kind}")


def fill_lanes(db: sqlite3.Connection, lane: Callable[[str], str]) -> tuple[int, int]:
    """Note the lane of each item; how many there are, and the sum of their sizes."""
    if lane is str:
        db.execute("INSERT INTO lanes SELECT id, CAST(topic AS TEXT) FROM items")
    else:
        topics = db.execute("SELECT id, topic FROM items").fetchall()
        db.executemany("INSERT INTO lanes VALUES (?, ?)", [(key, lane(str(topic))) for key, topic in topics])
    depth, size = db.execute("SELECT COUNT(*), COALESCE(SUM(size), 0) FROM items").fetchone()
    return int(depth), int(size)


def counters(db: sqlite3.Connection) -> dict[str, int]:
    """Raises sqlite3.DatabaseError when they are damaged."""
    found = dict(db.execute("SELECT name, value FROM counters").fetchall())
    if not {"dropped", "corrupt"} <= found.keys() or not all(isinstance(value, int) for value in found.values()):
        raise damaged(f"its counters are {found}")
    return found


def damaged(what: str) -> sqlite3.DatabaseError:
    return sqlite3.DatabaseError(what)  # of this very class: result_code takes it to be CORRUPT


def set_aside(path: Path, stamp: int) -> Path:
    """Move the database to `<name>.corrupt-<stamp>`, with its -wal, and remove what was moved aside before."""
    for older in asides(path):
        older.unlink()
    aside = path.with_name(f"{path.name}.corrupt-{stamp}")
    path.rename(aside)
    with suppress(FileNotFoundError):
        path.with_name(f"{path.name}-wal").rename(f"{aside}-wal")
    return aside


def asides(path: Path) -> Iterator[Path]:
    """What was moved aside of the database at `path`."""
    return path.parent.glob(f"{path.name}.corrupt-*")


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


def use_reserve(path: Path, db: sqlite3.Connection | None) -> None:
    """Give the reserve to the database: copy the WAL back, so that it is written from its beginning again."""
    _reserve(path).unlink(missing_ok=True)
    if db is not None:
        db.execute("PRAGMA wal_checkpoint(PASSIVE)")


def _reserve(path: Path) -> Path:
    return path.with_name(f"{path.name}-reserve")


def is_full(error: BaseException | None) -> bool:
    """Whether `error` says that the disk or a quota is full."""
    return result_code(error) in (sqlite_codes.FULL, sqlite_codes.IOERR_WRITE, sqlite_codes.IOERR)


def is_unreadable(error: BaseException, *, opening: bool = False) -> bool:
    """Whether `error` says that the file is not a database, a damaged one or, when `opening`, not a spool."""
    code = result_code(error)
    if opening and (code in (sqlite_codes.ERROR, *_BAD_DISK) or code & 0xFF == sqlite_codes.READONLY):
        return True  # read-only by its header: a file that cannot be written was an OSError before
    return code & 0xFF in (sqlite_codes.CORRUPT, sqlite_codes.NOTADB)


_BAD_DISK = (sqlite_codes.IOERR_READ, sqlite_codes.IOERR_SHORT_READ, sqlite_codes.IOERR_CORRUPTFS)


def reason(error: sqlite3.Error | OSError) -> str:
    """What went wrong, in words for a log line."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if is_full(error):
        return f"disk full, or no more can be written ({error})"
    if result_code(error) & 0xFF == sqlite_codes.BUSY:
        return "another process has it open"
    return f"{error} ({getattr(error, 'sqlite_errorname', type(error).__name__)})"
