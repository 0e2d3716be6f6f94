"""A file that is no sound database, or not any more, is moved aside, and a new one begun."""

import os
from pathlib import Path

import pytest

from edgeml.errors import SpoolError
from edgeml.spool import Spool
from spool_support import MANY, payloads


@pytest.mark.parametrize(
    "garbage", [b"this is no database " * 500, b"\0" * 8192, b"SQLite format 3\0" + b"\xff" * 8000]
)
def test_a_corrupt_file_is_moved_aside_and_a_new_spool_begun(
    tmp_path: Path, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s"
    path.write_bytes(garbage)
    spool = Spool(path, max_bytes=1_000_000, clock=lambda: 1234.0)
    spool.put("t", b"goes on")
    assert (payloads(spool), spool.corrupt) == ([b"goes on"], 1)
    spool.close()
    assert (tmp_path / "s.corrupt-1234").read_bytes() == garbage
    assert "moved_to=s.corrupt-1234" in caplog.text
    again = Spool(path, max_bytes=1_000_000)
    assert (again.depth, again.corrupt) == (1, 1)
    again.close()


def stored(path: Path, size: int = 3000) -> bytearray:
    """A database of 200 items of `size` bytes, as it lies on the disk."""
    spool = Spool(path, max_bytes=10_000_000)
    spool.put_many("t", [b"x" * size] * 200)
    spool.close()
    return bytearray(path.read_bytes())


def test_damage_within_a_database_is_found_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "s"
    data = stored(path)
    for offset in range(4096 * 4, len(data), 4096 * 4):
        data[offset : offset + 2048] = os.urandom(2048)
    path.write_bytes(data)
    spool = Spool(path, max_bytes=10_000_000)
    assert (spool.depth, spool.corrupt) == (0, 1)
    spool.close()


def test_damage_that_only_a_full_reading_finds_is_found_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "s"
    data = stored(path, 20_000)
    data[-8192:-8188] = b"\xff" * 4  # in an item's chain of pages: where the next page's number stands
    path.write_bytes(data)
    spool = Spool(path, max_bytes=10_000_000)
    assert (spool.depth, spool.corrupt) == (0, 1)
    spool.close()


def test_damage_while_it_is_open_costs_one_call_and_not_the_process(tmp_path: Path) -> None:
    path = tmp_path / "s"
    data = stored(path, 20_000)  # more than SQLite keeps in memory
    spool = Spool(path, max_bytes=10_000_000)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (len(data) - 4096))
    with pytest.raises(SpoolError, match="malformed"):
        spool.peek(MANY)
    spool.put("t", b"goes on")
    assert (payloads(spool), spool.corrupt, spool.depth) == ([b"goes on"], 1, 1)
    spool.close()


def test_only_the_newest_corrupt_file_is_kept(tmp_path: Path) -> None:
    moments = iter((1.0, 2.0, 3.0))
    for _ in range(3):
        (tmp_path / "s").write_bytes(b"garbage" * 1000)
        Spool(tmp_path / "s", max_bytes=1000, clock=lambda: next(moments)).close()
    assert [path.name for path in tmp_path.glob("*.corrupt-*")] == ["s.corrupt-3"]
