"""The thread that empties a spool: retries, drops, wake-ups and prompt stops."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgeml.drainer import Drainer
from edgeml.errors import SpoolError, Undeliverable
from edgeml.spool import Item, Spool
from support import eventually


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    opened = Spool(tmp_path / "s", max_bytes=1_000_000)
    yield opened
    opened.close()


class Receiver:
    """Takes items; raises what `fault` gives for the nth attempt."""

    def __init__(self, fault: Callable[[int, Item], Exception | None] = lambda attempt, item: None) -> None:
        self.payloads: list[bytes] = []
        self.attempts = 0
        self._fault = fault

    def __call__(self, item: Item) -> None:
        self.attempts += 1
        error = self._fault(self.attempts, item)
        if error is not None:
            raise error
        self.payloads.append(item.payload)


def at_once(failures: int) -> float:
    return 0.0


def for_long(failures: int) -> float:
    return 600.0


def fill(spool: Spool, count: int) -> list[bytes]:
    expected = [str(number).encode() for number in range(count)]
    for payload in expected:
        spool.put("t", payload)
    return expected


def test_a_failing_receiver_gets_everything_once_and_in_order(spool: Spool) -> None:
    receiver = Receiver(lambda attempt, item: ConnectionError("down") if attempt % 3 else None)
    drainer = Drainer(spool, receiver, transient=(ConnectionError,), backoff=at_once)
    expected = fill(spool, 30)
    eventually(lambda: spool.depth == 0, what="items left")
    assert drainer.stop(5)
    assert receiver.payloads == expected
    stats = drainer.stats
    assert (stats.sent, stats.failed, stats.dropped, stats.depth, stats.oldest_age_s) == (30, 60, 0, 0, 0.0)


def test_what_cannot_be_delivered_is_dropped_counted_and_logged(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver(lambda attempt, item: Undeliverable("topic too long") if item.payload == b"1" else None)
    fill(spool, 3)
    drainer = Drainer(spool, receiver, transient=(ConnectionError,))
    assert drainer.stop(5)
    assert receiver.payloads == [b"0", b"2"]
    assert (drainer.stats.sent, drainer.stats.failed, drainer.stats.dropped, spool.depth) == (2, 0, 1, 0)
    assert "topic too long" in caplog.text


def test_a_mistake_in_the_receiver_is_shown_and_loses_nothing(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver(lambda attempt, item: KeyError("oops") if attempt == 1 else None)
    drainer = Drainer(spool, receiver, transient=(ConnectionError,), backoff=at_once)
    expected = fill(spool, 2)
    eventually(lambda: spool.depth == 0, what="items left")
    assert drainer.stop(5)
    assert receiver.payloads == expected
    assert "KeyError: 'oops'" in caplog.text


def test_a_new_item_is_sent_at_once(spool: Spool) -> None:
    receiver = Receiver()
    drainer = Drainer(spool, receiver, transient=(ConnectionError,))
    for _ in range(3):
        time.sleep(0.03)  # lets it fall asleep; the test holds without it, but would show less
        spool.put("t", b"x")
        eventually(lambda: spool.depth == 0, 5.0, "delivery")  # without a wake-up it would sleep a minute
    assert drainer.stop(5)


def test_new_items_do_not_cut_the_backoff_short(spool: Spool) -> None:
    receiver = Receiver(lambda attempt, item: ConnectionError("down"))
    drainer = Drainer(spool, receiver, transient=(ConnectionError,), backoff=for_long)
    spool.put("t", b"x")
    eventually(lambda: drainer.stats.failed == 1, what="the first attempt")
    fill(spool, 20)
    time.sleep(0.05)
    assert receiver.attempts == 1
    drainer.stop(5)


def test_stop_ends_a_backoff_after_one_more_attempt_and_keeps_the_item(spool: Spool) -> None:
    receiver = Receiver(lambda attempt, item: ConnectionError("down"))
    drainer = Drainer(spool, receiver, transient=(ConnectionError,), backoff=for_long)
    spool.put("t", b"x")
    eventually(lambda: drainer.stats.failed == 1, what="the first attempt")
    began = time.monotonic()
    assert drainer.stop(30)
    assert time.monotonic() - began < 5
    assert (receiver.attempts, spool.depth) == (2, 1)


def test_stop_sends_what_is_left(spool: Spool) -> None:
    receiver = Receiver(lambda attempt, item: ConnectionError("down") if attempt == 1 else None)
    drainer = Drainer(spool, receiver, transient=(ConnectionError,), backoff=for_long)
    expected = fill(spool, 10)
    eventually(lambda: drainer.stats.failed == 1, what="the first attempt")
    assert drainer.stop(30)
    assert receiver.payloads == expected


def test_stop_returns_in_time_from_a_receiver_that_hangs_and_the_item_stays(spool: Spool) -> None:
    release, began = threading.Event(), threading.Event()

    def hang(item: Item) -> None:
        began.set()
        release.wait(30)

    drainer = Drainer(spool, hang, transient=(ConnectionError,))
    spool.put("t", b"x")
    assert began.wait(5)
    before = time.monotonic()
    assert not drainer.stop(0.2)
    assert time.monotonic() - before < 20  # of the 30 s that the receiver hangs
    assert spool.depth == 1
    release.set()
    eventually(lambda: spool.depth == 0, what="the late delivery")
    assert drainer.stop(5)


def test_an_item_that_was_sent_but_could_not_be_removed_is_not_sent_again(tmp_path: Path) -> None:
    class Failing(Spool):
        failures = 2

        def ack(self, item_ids: object) -> None:
            if self.failures:
                self.failures -= 1
                raise SpoolError("disk full")
            super().ack(item_ids)  # type: ignore[arg-type]

    spool, receiver = Failing(tmp_path / "s", max_bytes=1000), Receiver()
    drainer = Drainer(spool, receiver, transient=(ConnectionError,), backoff=at_once)
    expected = fill(spool, 3)
    eventually(lambda: spool.depth == 0, what="items left")
    assert drainer.stop(5)
    assert receiver.payloads == expected
    spool.close()


def test_the_age_of_the_oldest_item_is_told(tmp_path: Path) -> None:
    now = [100.0]
    spool = Spool(tmp_path / "s", max_bytes=1000, clock=lambda: now[0])
    spool.put("t", b"x")
    now[0] = 107.0
    spool.put("t", b"y")
    receiver = Receiver(lambda attempt, item: ConnectionError("down"))
    drainer = Drainer(spool, receiver, transient=(ConnectionError,), backoff=for_long)
    assert drainer.stats.oldest_age_s == 7.0
    drainer.stop(5)
    spool.close()
