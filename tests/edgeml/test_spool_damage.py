"""Spool files of version 1.0, damaged ones, and what is rescued of them."""

import os
import random
import sqlite3
from pathlib import Path

import pytest

from edgeml.drainer import Drainer
from edgeml.problems import Problems
from edgeml.spool import Item, Spool
from support import eventually

# As version 1.0 makes it.
OLD_SCHEMA = """
PRAGMA journal_mode = WAL;
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS items (
    id INTEGER PRIMARY KEY AUTOINCREMENT, created_at REAL NOT NULL, size INTEGER NOT NULL,
    topic TEXT NOT NULL, headers TEXT NOT NULL, payload BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
INSERT OR IGNORE INTO counters VALUES ('dropped', 0), ('corrupt', 0);
COMMIT;
"""
OLD_PUT = "INSERT INTO items (created_at, size, topic, headers, payload) VALUES (?,?,?,?,?)"


def old_spool(path: Path, count: int = 3) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    db.executescript(OLD_SCHEMA)
    for number in range(count):
        db.execute(OLD_PUT, (100.0 + number, 68, "t", "{}", b"%d" % number))
    db.close()


def filled(path: Path, count: int, size: int = 100) -> list[bytes]:
    """A spool of `count` items, closed; their payloads."""
    chance = random.Random(1)
    payloads = [b"%06d" % number + chance.randbytes(size) for number in range(count)]
    spool = Spool(path, max_bytes=10**8)
    spool.put_many("t", payloads)
    spool.close()
    return payloads


def drained(path: Path, problems: Problems) -> list[bytes]:
    """What a drainer finds in the spool at `path`; one more item is put to show that it works, and is the last."""
    taken: list[bytes] = []

    def send(item: Item) -> None:
        taken.append(item.payload)

    spool = Spool(path, max_bytes=10**8, problems=problems, subject="box")
    spool.put("t", b"new")
    drainer = Drainer(spool, send, transient=())
    eventually(lambda: b"new" in taken and spool.depth == 0, 30, what="delivery")
    assert drainer.stop(5)
    spool.close()
    assert taken.pop() == b"new"
    return taken


def test_a_spool_of_version_1_opens_as_before_and_goes_back_to_it(tmp_path: Path) -> None:
    path = tmp_path / "s"
    old_spool(path)
    spool = Spool(path, max_bytes=10_000)
    assert spool.peek(9) == [Item(n + 1, "t", b"%d" % n, {}, 100.0 + n) for n in range(3)]
    assert spool.peek()[0].moment is None
    assert spool.put("u", b"3") == 4
    assert spool.corrupt == 0
    spool.close()
    old = sqlite3.connect(path, isolation_level=None)
    old.executescript(OLD_SCHEMA)
    old.execute(OLD_PUT, (104.0, 68, "t", "{}", b"4"))
    assert old.execute("SELECT id, payload FROM items ORDER BY id").fetchall()[3:] == [(4, b"3"), (5, b"4")]
    old.close()
    spool = Spool(path, max_bytes=10_000)
    assert [item.payload for item in spool.peek(9)] == [b"0", b"1", b"2", b"3", b"4"]
    head = spool.oldest({"t"})
    assert head is not None
    assert (head.topic, head.payload) == ("u", b"3")
    spool.close()


def flipped(data: bytes, needle: bytes, offset: int) -> bytes:
    place = data.index(needle) + offset
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


SCHEMA_BYTES = {
    "a column's name": (b"topic TEXT NOT NULL, headers", 1),
    "a type's word": (b"INTEGER PRIMARY KEY", 0),
    "the table's name": (b"CREATE TABLE items", 14),
    "the object's type": (b"tableitemsitems", 2),
    "the object's name": (b"tableitemsitems", 6),
    "the object's table": (b"tableitemsitems", 12),
    "a column that is written": (b"headers TEXT", 1),
    "a column that came later": (b"uptime REAL", 1),
    "a keyword": (b"CREATE TABLE items", 2),
    "the counters' column": (b"CREATE TABLE counters (name", 23),
    "the name of the format": (b"SQLite format 3", 3),
}


@pytest.mark.parametrize(("needle", "offset"), SCHEMA_BYTES.values(), ids=SCHEMA_BYTES.keys())
def test_one_flipped_bit_in_the_schema_costs_no_item(tmp_path: Path, needle: bytes, offset: int) -> None:
    path, problems = tmp_path / "s", Problems()
    expected = filled(path, 50)
    path.write_bytes(flipped(path.read_bytes(), needle, offset))
    assert drained(path, problems) == expected
    (problem,) = problems.current()
    assert (problem.code, problem.subject) == ("spool_damaged", "box")
    assert "50 items of it" in problem.text
    assert len(list(tmp_path.glob("s.corrupt-*"))) == 1
    assert drained(path, problems) == []  # and it is rescued once
    assert not list(tmp_path.glob(".rescue-*"))


def test_every_byte_of_the_first_page_may_be_damaged(tmp_path: Path) -> None:
    chance = random.Random(11)
    expected = filled(tmp_path / "whole", 20)
    data = (tmp_path / "whole").read_bytes()
    used = [place for place in range(4096) if data[place]]
    for round_, place in enumerate(chance.sample(used, 25)):
        path = tmp_path / f"s{round_}"
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :])
        found = drained(path, Problems())
        assert found == expected, f"byte {place}"


def test_the_rows_of_sound_pages_are_rescued_in_order(tmp_path: Path) -> None:
    path = tmp_path / "s"
    expected = filled(path, 400, 300)
    data = bytearray(path.read_bytes())
    for page in range(9, len(data) // 4096, 9):
        data[page * 4096 : page * 4096 + 2048] = random.Random(page).randbytes(2048)
    path.write_bytes(data)
    found = drained(path, Problems())
    assert len(found) > 200
    assert found == sorted(found)
    assert set(found) <= set(expected)


def test_a_file_that_is_no_database_is_told_and_nothing_found(tmp_path: Path) -> None:
    path, problems = tmp_path / "s", Problems()
    path.write_bytes(os.urandom(50_000))
    assert drained(path, problems) == []
    assert "0 items of it" in problems.current()[0].text


@pytest.mark.parametrize(
    "damage", ["DELETE FROM counters", "UPDATE counters SET value = 'x'", "DROP TABLE counters", "DROP TABLE items"]
)
def test_tables_that_are_not_ours_any_more(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "s"
    expected = filled(path, 5)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(damage)
    db.close()
    assert drained(path, Problems()) == ([] if "items" in damage else expected)


def test_ids_rise_after_a_damaged_file_too(tmp_path: Path) -> None:
    path = tmp_path / "s"
    filled(path, 5)
    path.write_bytes(b"garbage" * 1000)
    spool = Spool(path, max_bytes=1000)
    assert spool.put("t", b"x") > 5
    spool.close()
