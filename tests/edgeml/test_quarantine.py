"""Items that are refused: put aside with the reason, tried again, bounded, and none of them lost."""

import contextlib
import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgeml import drainer as draining
from edgeml.errors import IpcError, RefusedError
from edgeml.problems import Problems
from edgeml.spool import Spool
from forked import popen
from spool_support import MANY, Receiver, boxed, codes, drained, notes
from support import eventually

REFUSALS = {
    "refused": RefusedError("InvalidArguments"),
    "a mistake of ours": KeyError("verb"),
    "a library's": UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates"),
}


@pytest.mark.parametrize("error", REFUSALS.values(), ids=REFUSALS.keys())
def test_who_is_refused_lets_others_pass_and_is_put_aside_with_the_reason(
    spool: Spool, problems: Problems, error: Exception
) -> None:
    receiver = Receiver(lambda item: error if item.topic == "bad" else None)
    spool.put("bad", b"1", headers={"qos": "1"})
    spool.put("good", b"2")
    spool.put("bad", b"3")
    drainer = drained(spool, receiver)
    eventually(lambda: spool.depth == 0, what="both lanes")
    assert receiver.taken == [("good", b"2")]
    assert [(note["topic"], note["headers"]) for note in notes(spool)] == [("bad", {"qos": "1"}), ("bad", {})]
    assert all(str(error) in note["reason"] and note["attempts"] > 0 for note in notes(spool))
    payloads = sorted(path.read_bytes() for path in spool.refusals.quarantine.folder.glob("*.payload"))
    assert payloads == [b"1", b"3"]
    assert codes(problems) == {("refused", "box.bad"), ("quarantined", "box")}
    # The second of a lane that is closed needs one answer only.
    assert receiver.asked.count(("bad", b"1")) == draining.REFUSALS
    assert receiver.asked.count(("bad", b"3")) == 1
    assert (drainer.stats.refused, drainer.stats.dropped) == (2, 0)
    assert drainer.stop(5)


def test_an_answer_once_is_no_reason_to_put_aside(spool: Spool, problems: Problems) -> None:
    faults = [RefusedError("a policy that is just being deployed"), IpcError("down"), RefusedError("again")]
    receiver = Receiver(lambda item: faults.pop() if faults else None)
    expected = [spool.put("t", b"%d" % n) and ("t", b"%d" % n) for n in range(3)]
    drainer = drained(spool, receiver)
    eventually(lambda: spool.depth == 0)
    assert receiver.taken == expected
    assert drainer.stop(5)
    assert (spool.refusals.count, codes(problems)) == (0, set())


def test_what_was_refused_is_tried_once_more_after_a_restart_and_on_request(tmp_path: Path) -> None:
    path = tmp_path / "s"
    refusing = Receiver(lambda item: RefusedError("AccessDenied") if item.topic == "bad" else None)
    for expected in (b"1", b"2"):
        spool = Spool(path, max_bytes=1_000_000)
        if expected == b"1":
            for payload in (b"1", b"2"):
                spool.put("bad", payload)
        drainer = drained(spool, refusing)
        before = len(refusing.asked)
        eventually(lambda: len(refusing.asked) > before, what="an attempt")  # noqa: B023
        eventually(lambda: (spool.refusals.count, spool.depth) == (2, 0), what="both aside")  # noqa: B023
        asked = len(refusing.asked)
        time.sleep(0.05)
        assert len(refusing.asked) == asked, "tried again with nothing changed"
        assert drainer.stop(5)
        spool.close()
    spool, before = Spool(path, max_bytes=1_000_000), len(refusing.asked)
    drainer = drained(spool, refusing)
    eventually(lambda: len(refusing.asked) > before)
    eventually(lambda: (spool.refusals.count, spool.depth) == (2, 0))
    refusing.fault = lambda item: None  # the policy is corrected
    spool.put("bad", b"3")
    drainer.again()
    eventually(lambda: (spool.refusals.count, spool.depth) == (0, 0))
    assert drainer.stop(5)
    assert sorted(refusing.taken) == [("bad", b"1"), ("bad", b"2"), ("bad", b"3")]
    assert not list(spool.refusals.quarantine.folder.iterdir())
    spool.close()


def test_what_is_put_back_takes_its_old_place(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", max_bytes=1_000_000, clock=lambda: 12.5)
    ids = [spool.put("t", b"%d" % number, headers={"n": str(number)}) for number in range(4)]
    before = spool.peek(9)
    for item in before[:2]:
        spool.refusals.add(item, "no", 3)
    assert [item.id for item in spool.peek(9)] == ids[2:]
    spool.close()
    spool = Spool(tmp_path / "s", max_bytes=1_000_000)
    assert spool.refusals.put_back(spool.refusals.quarantine.names) == []
    assert spool.peek(9) == before
    assert spool.peek(9)[0].moment == before[0].moment
    assert spool.size_bytes == sum(spool.size_of(i.topic, json.dumps(i.headers), i.payload) for i in before)
    spool.close()


def test_the_quarantine_is_bounded_and_drops_the_oldest(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = Spool(tmp_path / "s", max_bytes=10_000)
    for number in range(20):
        spool.put("bad", bytes([number]) * 1000)
        spool.refusals.add(spool.peek()[0], "no", 3)
    folder = spool.refusals.quarantine.folder
    assert sum(path.stat().st_size for path in folder.iterdir()) == spool.refusals.quarantine.size <= 10_000
    kept = [path.read_bytes()[0] for path in sorted(folder.glob("*.payload"))]
    assert kept == list(range(20 - len(kept), 20))
    assert spool.dropped == 20 - len(kept) > 0
    assert "quarantine full" in caplog.text
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    spool.close()


def test_within_the_cap_nothing_that_is_only_refused_is_lost(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s", max_bytes=100_000)
    receiver = Receiver(lambda item: RefusedError("NoSuchBucket"))
    spool.put_many("bad", [b"%03d" % number * 100 for number in range(30)])
    drainer = drained(spool, receiver)
    for _ in range(2):
        eventually(lambda: (spool.depth, spool.refusals.count) == (0, 30), what="all aside")
        drainer.again()
    receiver.fault = lambda item: None
    drainer.again()
    eventually(lambda: (spool.depth, spool.refusals.count) == (0, 0), what="all sent")
    assert drainer.stop(5)
    assert {payload for _, payload in receiver.taken} == {b"%03d" % n * 100 for n in range(30)}
    assert spool.dropped == 0
    spool.close()


def test_a_quarantine_that_cannot_be_written_keeps_the_item_and_lets_others_pass(
    spool: Spool, caplog: pytest.LogCaptureFixture
) -> None:
    spool.refusals.quarantine.folder.write_text("in the way")
    receiver = Receiver(lambda item: RefusedError("no") if item.topic == "bad" else None)
    spool.put("bad", b"1")
    spool.put("good", b"2")
    drainer = drained(spool, receiver, lambda failures: 0.0 if failures < 5 else 600.0)
    eventually(lambda: receiver.taken == [("good", b"2")] and len(receiver.asked) > 4)
    assert drainer.stop(5)
    assert [item.payload for item in spool.peek(9)] == [b"1"]
    assert "quarantine" in caplog.text


BAD_ROWS = {
    "no JSON": "UPDATE items SET headers = '{' WHERE id = 2",
    "a list": "UPDATE items SET headers = '[]' WHERE id = 2",
    "numbers": """UPDATE items SET headers = '{"a": 1}' WHERE id = 2""",
    "deep": "UPDATE items SET headers = printf('%.5000c', '[') WHERE id = 2",
    "no UTF-8": "UPDATE items SET headers = CAST(X'FF00' AS TEXT) WHERE id = 2",
    "topic no UTF-8": "UPDATE items SET topic = CAST(X'FFFE' AS TEXT) WHERE id = 2",
    "a blob as topic": "UPDATE items SET topic = X'0102' WHERE id = 2",
    "a text as payload": "UPDATE items SET payload = 'text' WHERE id = 2",
    "a text as time": "UPDATE items SET created_at = 'now' WHERE id = 2",
}


@pytest.mark.parametrize("damage", BAD_ROWS.values(), ids=BAD_ROWS.keys())
def test_a_row_that_is_no_item_is_set_aside_once(tmp_path: Path, problems: Problems, damage: str) -> None:
    spool = boxed(tmp_path / "s", problems)
    for number in range(3):
        spool.put("t", b"%d" % number)
    spool.close()
    with contextlib.closing(sqlite3.connect(tmp_path / "s")) as database, database:
        database.execute(damage)
    spool = boxed(tmp_path / "s", problems)
    receiver = Receiver()
    drainer = drained(spool, receiver)
    eventually(lambda: spool.depth == 0)
    assert receiver.taken == [("t", b"0"), ("t", b"2")]
    assert [(note["id"], note["unreadable"]) for note in notes(spool)] == [(2, True)]
    assert ("quarantined", "box") in codes(problems)
    drainer.again()
    spool.put("t", b"3")
    eventually(lambda: spool.depth == 0)
    assert drainer.stop(5)
    assert spool.refusals.count == 1
    spool.close()


# Refuses everything on "bad" and is killed at some moment; what is refused must be in the queue or put aside, once.
REFUSE_FOR_EVER = """
import sys
from pathlib import Path
from edgeml.errors import RefusedError
from edgeml.drainer import Drainer
from edgeml.spool import Spool
def send(item):
    raise RefusedError("no")
spool = Spool(Path(sys.argv[1]), max_bytes=10**8)
drainer = Drainer(spool, send, transient=(), backoff=lambda failures: 0.0)
while True:
    number = spool.put(f"bad/{spool.depth % 3}", b"x" * 100)
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
"""


def test_kill_9_while_items_are_put_aside_and_back_loses_none(tmp_path: Path) -> None:
    path, chance = tmp_path / "s", random.Random(7)
    told: set[int] = set()
    for _ in range(8):
        with popen([sys.executable, "-c", REFUSE_FOR_EVER, path], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            lines = [child.stdout.readline()]
            time.sleep(chance.uniform(0, 0.1))
            child.send_signal(signal.SIGKILL)
            lines += child.stdout.readlines()
        told |= {int(line) for line in lines if line.endswith("\n")}
    spool = Spool(path, max_bytes=10**8)
    while names := spool.refusals.quarantine.names:
        spool.refusals.put_back(names)
    found = [item.id for item in spool.peek(MANY)]
    assert told <= set(found)
    assert len(found) == len(set(found)) == spool.depth
    assert not list(spool.refusals.quarantine.folder.iterdir())
    spool.close()
