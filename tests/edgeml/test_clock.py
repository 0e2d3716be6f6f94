"""The clock that may be wrong at boot: held, corrected after jumps of years both ways, marked where nobody knows."""

import json
import time

import pytest

from clock_support import FakeClock
from edgeml.clock import EARLIEST, LATEST, WAIT_S, Clock, restamped

TRUE = 1_800_000_000.0  # 2027
YEARS = 30 * 365 * 86400.0


@pytest.mark.parametrize("wrong", [0.0, 5.0, TRUE - YEARS, TRUE - 86400, TRUE + 86400, TRUE + YEARS, TRUE + 4 * YEARS])
def test_a_moment_gets_its_true_time_when_the_clock_is_set(wrong: float) -> None:
    clock = FakeClock(wrong, uptime=12.0)
    moment = clock.now()
    assert not moment.believed
    assert not clock.is_certain(moment)
    assert clock.shift_s(moment) == 0.0
    assert 0 < clock.hold_s() <= WAIT_S
    clock.pass_s(100)
    clock.synchronise(TRUE)
    assert moment.wall + clock.shift_s(moment) == pytest.approx(TRUE - 100)
    assert clock.is_certain(moment)
    assert clock.hold_s() == 0.0
    assert clock.age_s(moment) == pytest.approx(100)


def test_a_clock_that_was_believed_and_jumps_by_years_corrects_what_came_before() -> None:
    clock = FakeClock(TRUE + YEARS, synchronised=True)
    moment = clock.now()
    assert moment.believed
    clock.wall = TRUE
    assert moment.wall + clock.shift_s(moment) == pytest.approx(TRUE)


def test_a_small_correction_leaves_times_as_they_are() -> None:
    clock = FakeClock(TRUE, synchronised=True)
    moment = clock.now()
    clock.pass_s(10)
    clock.wall += 30
    assert clock.shift_s(moment) == 0.0


def test_the_clock_is_waited_for_at_most_so_long_after_boot() -> None:
    clock = FakeClock(5.0, uptime=590.0)
    assert clock.hold_s() == pytest.approx(10)
    assert clock.hold_s(wait_s=60) == 0.0
    clock.pass_s(10)
    assert clock.hold_s() == 0.0
    assert not clock.is_certain(clock.now())


def test_what_another_boot_noted_under_a_wrong_clock_stays_uncertain() -> None:
    clock = FakeClock(5.0)
    before = clock.now()
    after = FakeClock(TRUE, synchronised=True, boot="boot-2")
    assert (after.shift_s(before), after.is_certain(before)) == (0.0, False)
    assert after.age_s(before) == TRUE - 5
    assert clock.age_s(after.now()) == 0.0


def test_a_time_server_that_goes_away_takes_no_trust_with_it() -> None:
    clock = FakeClock(TRUE, synchronised=True)
    assert clock.believed()
    clock.synchronised = False
    assert clock.believed()
    for impossible in (EARLIEST - 1, LATEST):
        clock.wall = impossible
        assert not clock.believed()


def test_this_machine_answers_and_its_boot_has_a_name() -> None:
    moment = Clock().now()
    assert abs(moment.wall - time.time()) < 5
    assert moment.uptime > 0
    assert moment.boot == Clock().now().boot != ""
    assert isinstance(moment.believed, bool)


def test_times_of_a_message_are_shifted_and_nothing_else() -> None:
    message = {
        "source": {"captured_at": 5.25, "frame_id": 7},
        "ts": 5250,
        "lines": [{"timestamp": 1000, "message": "a"}, {"message": "b"}],
        "odd": "text",
        "flag": True,
    }
    times = {"source.captured_at": 1, "ts": 1000, "lines.timestamp": 1000, "odd": 1, "flag": 1, "absent.x": 1}
    found = json.loads(restamped(json.dumps(message).encode(), times, 100.5, certain=True))
    assert found == {
        **message,
        "source": {"captured_at": 105.75, "frame_id": 7},
        "ts": 105_750,
        "lines": [{"timestamp": 101_500, "message": "a"}, {"message": "b"}],
    }
    marked = json.loads(restamped(json.dumps(message).encode(), times, 0.0, certain=False))
    assert marked == {**message, "clock": "unsynchronised"}


def test_only_times_of_the_same_boots_wrong_clock_are_shifted() -> None:
    """A line of the boot before, which is delivered only now, had its right time already."""
    made = FakeClock(1000.0, uptime=100.0).now()
    times = [899_000, 1_000_000, 1_100_000, 840_000, 1_700_000_000_000]
    message = {"lines": [{"timestamp": time} for time in times]}
    payload = json.dumps(message).encode()
    found = json.loads(restamped(payload, {"lines.timestamp": 1000}, 50.0, certain=True, made=made))
    assert [line["timestamp"] for line in found["lines"]] == [949_000, 1_050_000, 1_100_000, 890_000, 1_700_000_000_000]


@pytest.mark.parametrize("payload", [b"", b"no json", b"[1]", b'"x"', b"\xff{}"], ids=repr)
def test_what_is_no_object_stays_whole(payload: bytes) -> None:
    assert restamped(payload, {"ts": 1}, 5.0, certain=False) == payload
