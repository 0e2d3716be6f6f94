"""Capture times by a stream's own times, and by the clock where these cannot be."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camera_capture.stream_clock import MAX_LATE_S, MAX_LIES, StreamClock

STEP = 0.04


def captured(clock: StreamClock, time: float | None, now: float, shown: float | None = None) -> float:
    clock.arrived(time, now)
    return clock.captured(time, shown or now)


def test_what_came_late_was_captured_when_its_stream_says() -> None:
    clock, found = StreamClock(), []
    for number, late in enumerate([0, 0.03, 0, 0.5, 0.46, 0.42, 0, 0.01]):
        found.append(captured(clock, 7e8 + number * STEP, 100 + number * STEP + late) - number * STEP)
    assert found == pytest.approx([100.0] * 8, abs=1e-3)


def test_the_time_in_a_decoder_is_not_part_of_it() -> None:
    clock = StreamClock()
    assert captured(clock, 5.0, 100.0, shown=100.2) == 100.0


def test_a_clock_that_drifts_is_followed() -> None:
    clock, worst = StreamClock(), 0.0
    for number in range(20_000):  # at 500 ppm, slow and fast
        now = 100 + number * STEP
        time = number * STEP * 0.9995 if number < 10_000 else 400 * 0.9995 + (number - 10_000) * STEP * 1.0005
        worst = max(worst, now - captured(clock, time, now))
    assert worst < 0.01


def test_times_at_half_the_pace_are_soon_not_believed() -> None:
    clock, errors = StreamClock(), []
    for number in range(1000):
        now = 100 + number * STEP
        errors.append(now - captured(clock, number * STEP / 2, now))
    assert max(errors) <= MAX_LATE_S + STEP
    assert max(errors[-500:]) == 0
    assert MAX_LIES < 1000 * STEP / 2 / MAX_LATE_S


@given(st.lists(st.tuples(st.none() | st.floats(allow_nan=False, width=64), st.floats(1e-3, 1)), max_size=30))
@settings(max_examples=30, deadline=None)
def test_whatever_the_times_are_frames_follow_each_other_and_are_never_of_the_future(
    frames: list[tuple[float | None, float]],
) -> None:
    clock, now, last = StreamClock(), 100.0, 0.0
    for time, step in frames:
        now += step
        found = captured(clock, time, now)
        assert last < found <= now
        assert found >= now - MAX_LATE_S - step - 1
        last = found
