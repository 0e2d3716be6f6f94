"""What can still be read of a damaged spool file: the rows of its sound pages, also when its schema is gone."""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from edgeml._spool_db import SCHEMA, text

_PAGE = 4096  # bytes, SQLite's default, which a spool's file has
_COUNTS = slice(24, 40)  # of the header: change counter, pages, free pages; they stay those of the damaged file
_VALID_FOR = slice(92, 96)
_MAX_FAILURES = 64  # in a row; each skips twice as many ids as the one before
_ROWS = "SELECT id, created_at, size, topic, headers, payload FROM items WHERE id > ? ORDER BY id"


def rows(aside: Path) -> Iterator[tuple[Any, ...]]:
    """Rows of `items` that can be read of the file `aside`, in order: id, created_at, size, topic, headers, payload.

    What a row holds is not checked. The file itself is left as it is. Raises OSError.
    """
    with tempfile.TemporaryDirectory(dir=aside.parent, prefix=".rescue-") as folder:
        copy = Path(folder) / "copy"
        _copy(aside, copy)
        _give_schema(copy, Path(folder) / "empty")  # whatever it looks like: a flipped bit may make it another one
        if not _has_items(copy):  # its WAL brought the damaged page back
            _copy(aside, copy)
            Path(f"{copy}-wal").unlink(missing_ok=True)
            _give_schema(copy, Path(folder) / "empty")
        yield from _readable(copy)


def _copy(aside: Path, copy: Path) -> None:
    shutil.copyfile(aside, copy)
    with suppress(FileNotFoundError):
        shutil.copyfile(f"{aside}-wal", f"{copy}-wal")


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    db.text_factory = text
    return db


def _has_items(path: Path) -> bool:
    with closing(_open(path)) as db:
        try:
            db.execute(f"{_ROWS} LIMIT 1", (0,)).fetchall()
        except (sqlite3.Error, UnicodeError):  # UnicodeError: in SQLite's own message
            return False
    return True


def _give_schema(path: Path, empty: Path) -> None:
    """Put the first page of a new spool in place of a damaged one: tables lie at the same pages in every spool."""
    with closing(_open(empty)) as db:
        db.executescript(SCHEMA)
    page = bytearray(empty.read_bytes()[:_PAGE])
    with path.open("r+b") as file:
        old = file.read(_PAGE)
        pages = (file.seek(0, 2) // _PAGE).to_bytes(4, "big")
        page[_COUNTS] = old[24:28] + pages + bytes(8)  # free pages are forgotten: nothing is written here
        page[_VALID_FOR] = old[24:28]
        file.seek(0)
        file.write(page)


def _readable(path: Path) -> Iterator[tuple[Any, ...]]:
    """Row by row; behind a damaged page with the next id that can be found."""
    with closing(_open(path)) as db:
        last = failures = 0
        while failures < _MAX_FAILURES:
            try:
                for row in db.execute(_ROWS, (last,)):
                    yield row
                    last, failures = int(row[0]), 0
                return
            except (sqlite3.Error, UnicodeError, OverflowError):
                last += 1 << min(failures, 62)
                failures += 1
