"""Outages: who is down keeps its order and waits, and nobody else does."""

import random
from pathlib import Path

import pytest

from edgeml import drainer as draining
from edgeml.drainer import Held
from edgeml.errors import IpcError, Undeliverable
from edgeml.problems import Problems
from edgeml.spool import Spool
from spool_support import Receiver, codes, drained
from support import eventually


def test_a_lane_that_is_down_keeps_its_order_and_nobody_else(spool: Spool, problems: Problems) -> None:
    chance = random.Random(3)
    receiver = Receiver(lambda item: IpcError("down") if item.topic == "b" or chance.random() < 0.3 else None)
    expected: dict[str, list[bytes]] = {"a": [], "b": [], "c": []}
    for number in range(60):
        topic = "abc"[number % 3]
        expected[topic].append(b"%d" % number)
        spool.put(topic, b"%d" % number)
    drainer = drained(spool, receiver, lambda failures: 0.001 * min(failures, 20))
    eventually(lambda: spool.depth == 20, what="the other lanes")
    eventually(lambda: ("unreachable", "box.b") in codes(problems))
    receiver.fault = lambda item: None
    eventually(lambda: spool.depth == 0, what="the lane that was down")
    assert {topic: [p for t, p in receiver.taken if t == topic] for topic in "abc"} == expected
    assert drainer.stop(5)
    assert (codes(problems), spool.refusals.count) == (set(), 0)


def test_an_outage_of_any_length_puts_nothing_aside(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "DOUBT_S", 0.0)
    receiver = Receiver(lambda item: IpcError("ServiceError"))
    spool.put("a", b"1")
    spool.put("b", b"2")
    drainer = drained(spool, receiver)
    eventually(lambda: len(receiver.asked) > 20 * draining.DOUBTS, what="attempts")
    assert (spool.depth, spool.refusals.count) == (2, 0)
    drainer.stop(5)


def test_a_no_without_words_is_known_by_what_others_are_told(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nucleus Lite says ServiceError to a refusal and to an outage alike."""
    monkeypatch.setattr(draining, "DOUBT_S", 0.0)
    receiver = Receiver(lambda item: IpcError("ServiceError") if item.topic == "bad" else None)
    spool.put("bad", b"1")
    drainer = drained(spool, receiver)
    for number in range(100):
        spool.put("good", b"%d" % number)
    eventually(lambda: (spool.depth, spool.refusals.count) == (0, 1))
    assert drainer.stop(5)
    assert len(receiver.taken) >= draining.DOUBTS


def test_one_item_that_is_refused_without_words_lets_its_own_lane_pass(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draining, "DOUBT_S", 0.0)
    receiver = Receiver(lambda item: IpcError("ServiceError") if item.payload == b"3" else None)
    for number in range(20):
        spool.put("t", b"%d" % number)
    drainer = drained(spool, receiver)
    eventually(lambda: (spool.depth, spool.refusals.count) == (0, 1), what="the one that is refused aside")
    assert drainer.stop(5)
    assert receiver.taken == [("t", b"%d" % number) for number in range(20) if number != 3]
    assert receiver.asked.count(("t", b"3")) >= draining.DOUBTS


def test_a_held_item_waits_without_being_a_failure(spool: Spool) -> None:
    held = [True]
    receiver = Receiver(lambda item: Held(0.01) if item.topic == "a" and held[0] else None)
    spool.put("a", b"1")
    spool.put("a", b"2")
    spool.put("b", b"3")
    drainer = drained(spool, receiver)
    eventually(lambda: receiver.taken == [("b", b"3")])
    held.clear()
    held.append(False)
    eventually(lambda: spool.depth == 0)
    assert receiver.taken == [("b", b"3"), ("a", b"1"), ("a", b"2")]
    assert drainer.stats.failed == 0
    assert drainer.stop(5)


def test_items_that_can_never_be_delivered_are_told_of_now_and_then(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path / "s.db", max_bytes=1 << 20)
    drainer = drained(spool, Receiver(lambda item: Undeliverable("never")))
    spool.put_many("a", [b"x"] * 100)
    eventually(lambda: spool.depth == 0, what="all to be dropped")
    assert drainer.stop(5)
    spool.close()
    assert caplog.text.count("item dropped") == 7  # the 1st, 2nd, 4th ... 64th
