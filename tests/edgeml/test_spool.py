"""The durable queue: order and bounds, kill -9, full disk, corrupt files, and the thread that empties it."""

import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgeml.errors import SpoolError
from edgeml.spool import ITEM_OVERHEAD, Item, Spool
from forked import popen
from spool_support import MANY, payloads

# Puts numbered items for ever and prints each id once put has returned; every third round removes an old one, so
# that kills meet removals too. Payloads differ in size: some need several pages.
PUT_FOR_EVER = """
import sys
from pathlib import Path
from edgeml.spool import Spool
spool = Spool(Path(sys.argv[1]), max_bytes=10**9)
while True:
    number = spool.put("t", b"x" * (spool.depth % 7 * 2000), headers={"after": str(spool.depth)})
    sys.stdout.write(f"put {number}\\n")
    sys.stdout.flush()
    if number % 3 == 0:
        (oldest,) = spool.peek()
        sys.stdout.write(f"ack {oldest.id}\\n")
        sys.stdout.flush()
        spool.ack([oldest.id])
"""

FILL = """
import os, sys
from pathlib import Path
from edgeml.errors import SpoolError
from edgeml.spool import Spool
path = Path(sys.argv[1]) / "s"
spool = Spool(path, max_bytes=10**9)
try:
    while True:
        spool.put("t", os.urandom(20_000))
except SpoolError as error:
    assert "disk full" in str(error), error
assert [problem.code for problem in spool.problems.current()] == ["disk_full"]
stored = spool.depth
assert stored > 10
spool.close()
spool = Spool(path, max_bytes=10**9)
assert [item.id for item in spool.peek(10**6)] == list(range(1, stored + 1))
while spool.depth:
    spool.ack([spool.peek()[0].id])
spool.put("t", os.urandom(20_000))
assert not spool.problems.current()
print("stored", stored)
"""


def is_sound(path: Path) -> bool:
    with sqlite3.connect(path) as db:
        (verdict,) = db.execute("PRAGMA integrity_check").fetchone()
    db.close()
    return bool(verdict == "ok")


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "s", max_bytes=1_000_000)
    yield opened
    opened.close()


def test_several_items_are_stored_together_or_not_at_all(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", max_bytes=1000)
    assert spool.put_many("t", [b"1", b"2", b"3"]) == [1, 2, 3]
    with pytest.raises(SpoolError, match=r"2 items of .* above the cap"):
        spool.put_many("t", [b"x" * 600, b"y" * 600])
    assert payloads(spool) == [b"1", b"2", b"3"]
    assert spool.put_many("t", []) == []
    spool.put_many("t", [b"x" * 400, b"y" * 400])
    assert (payloads(spool), spool.dropped) == ([b"x" * 400, b"y" * 400], 3)
    assert spool.size_bytes == sum(len(item.payload) + ITEM_OVERHEAD + 3 for item in spool.peek(9))
    spool.close()


def test_items_of_all_topics_come_out_whole_and_in_order(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", max_bytes=1_000_000, clock=lambda: 12.5)
    assert spool.peek() == []
    first = spool.put("a/b", b"\0\xff", headers={"content_type": "image/jpeg"})
    second = spool.put("größe", b"")
    assert spool.peek() == [Item(first, "a/b", b"\0\xff", {"content_type": "image/jpeg"}, 12.5)]
    assert spool.peek(5)[1:] == [Item(second, "größe", b"", {}, 12.5)]
    assert second > first
    spool.close()


def test_items_acknowledgements_and_drops_survive_a_restart(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", max_bytes=3 * (ITEM_OVERHEAD + 20))
    ids = [spool.put("t", str(number).encode()) for number in range(5)]
    spool.ack([ids[3]])
    spool.discard([ids[4]])
    before = (spool.depth, spool.size_bytes, spool.dropped)
    spool.close()
    again = Spool(tmp_path / "s", max_bytes=1000)
    assert payloads(again) == [b"2"]
    assert (again.depth, again.size_bytes, again.dropped) == before == (1, ITEM_OVERHEAD + 4, 3)
    assert again.put("t", b"new") > max(ids)
    again.close()


def test_the_oldest_are_dropped_first_above_the_cap_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path / "s", max_bytes=10_000)
    for number in range(100):
        spool.put("t", bytes([number]) * 1000)
        assert spool.size_bytes <= 10_000
    assert [payload[0] for payload in payloads(spool)] == list(range(91, 100))
    assert (spool.depth, spool.dropped) == (9, 91)
    assert [record.levelname for record in caplog.records] == ["WARNING"]  # not one for each
    spool.put("t", b"x" * 9_900)
    assert spool.depth == 1
    spool.close()


LARGEST = 1_000_000 - ITEM_OVERHEAD - len("t") - len("{}")  # a payload that is alone in the cap


@pytest.mark.parametrize("size", [0, 1, LARGEST - 1, LARGEST])
def test_an_item_within_the_cap_is_stored_and_takes_no_more_room_than_it_needs(spool: Spool, size: int) -> None:
    spool.put("t", b"kept")
    spool.put("t", b"x" * size)
    fits = size <= LARGEST - len("kept") - ITEM_OVERHEAD - len("t{}")
    assert payloads(spool) == ([b"kept"] if fits else []) + [b"x" * size]
    assert spool.dropped == (not fits)


@pytest.mark.parametrize("size", [LARGEST + 1, 10 * LARGEST])
def test_an_item_above_the_cap_is_refused_and_nothing_dropped_for_it(spool: Spool, size: int) -> None:
    spool.put("t", b"kept")
    with pytest.raises(SpoolError, match=r"\d+ bytes is above the cap of 1000000"):
        spool.put("t", b"x" * size)
    assert payloads(spool) == [b"kept"]
    assert spool.dropped == 0


def test_the_files_stay_within_the_cap_and_are_private(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", max_bytes=500_000)
    for number in range(400):
        spool.put("t", bytes([number % 256]) * 20_000)
    files = list(tmp_path.iterdir())
    assert sum(path.stat().st_size for path in files) < 500_000 * 1.1 + 2 * (1 << 20)
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    spool.close()


def test_unknown_ids_are_no_error_and_not_counted(spool: Spool) -> None:
    number = spool.put("t", b"x")
    spool.ack([number, number, 99])
    spool.discard([number, 99])
    assert (spool.depth, spool.size_bytes, spool.dropped) == (0, 0, 0)


def test_threads_may_share_a_spool(spool: Spool) -> None:
    def work(name: str) -> None:
        for number in range(50):
            spool.put(name, str(number).encode())
            if number % 5 == 0:
                spool.ack([item.id for item in spool.peek(1) if item.topic == name])

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    items = spool.peek(MANY)
    assert len(items) == spool.depth
    assert spool.size_bytes == sum(len(item.payload) + 1 + 2 + ITEM_OVERHEAD for item in items)
    for name in "abcd":
        numbers = [int(item.payload) for item in items if item.topic == name]
        assert numbers == sorted(numbers)
        assert numbers[-1] == 49


def test_a_second_process_is_kept_out(spool: Spool, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from edgeml.spool import Spool; Spool(Path(sys.argv[1]), max_bytes=1000)"
    )
    done = subprocess.run([sys.executable, "-c", code, spool.path], capture_output=True, text=True, timeout=30)
    assert "another process has it open" in done.stderr


def test_a_closed_spool_says_so(spool: Spool) -> None:
    spool.close()
    with pytest.raises(SpoolError, match="closed"):
        spool.put("t", b"x")
    with pytest.raises(SpoolError, match="closed"):
        spool.peek()


def test_a_place_that_cannot_be_opened_is_a_spool_error(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent" / "s"):
        with pytest.raises(SpoolError, match="cannot open"):
            Spool(path, max_bytes=1000)


def test_kill_9_at_any_moment_loses_nothing_that_put_returned(tmp_path: Path) -> None:
    path, chance = tmp_path / "s", random.Random(5)
    present: list[int] = []
    for _ in range(24):
        with popen([sys.executable, "-c", PUT_FOR_EVER, path], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            lines = [child.stdout.readline() for _ in range(chance.randint(1, 40))]
            child.send_signal(signal.SIGKILL)
            lines += child.stdout.readlines()
        told = [(verb, int(number)) for verb, number in (line.split() for line in lines if line.endswith("\n"))]
        present += [number for verb, number in told if verb == "put"]
        removed = [number for verb, number in told if verb == "ack"]
        spool = Spool(path, max_bytes=MANY)
        found = [item.id for item in spool.peek(MANY)]
        # The last line may tell of an ack that never came about, and the last put may not have been told.
        expected = [number for number in present if number not in removed[:-1]]
        assert found == sorted(found)
        assert set(expected) - set(found) <= set(removed[-1:])
        assert len(set(found) - set(expected)) <= 1
        assert all(item.payload == b"x" * (int(item.headers["after"]) % 7 * 2000) for item in spool.peek(MANY))
        assert spool.size_bytes == sum(
            len(i.payload) + 1 + len(str(i.headers)) + ITEM_OVERHEAD for i in spool.peek(MANY)
        )
        spool.close()
        assert is_sound(path)
        present = found
    assert len(present) > 100
    assert not list(tmp_path.glob("*.corrupt-*"))


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs unshare for a small file system of its own")
def test_a_full_disk_is_an_error_loses_nothing_and_can_be_drained(tmp_path: Path) -> None:
    mount = 'mount -t tmpfs -o size=4m none "$1" 2>/dev/null || exit 77; exec "$2" -c "$3" "$1"'
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount, "sh", tmp_path, sys.executable, FILL],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("this machine allows no mount")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("stored ")
