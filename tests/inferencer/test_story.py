"""What is told of objects: each thing once, however boxes tremble."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeml.messages import (
    Detection,
    Event,
    SampleRef,
)
from events_support import SIZE, YARD, box
from inferencer.events.places import Line, Zone
from inferencer.events.story import MAX_HELD, Rules, Story
from inferencer.tracking.tracker import Tracker

GATE = Line(points=((0.5, 1.0), (0.5, 0.2)))  # upwards: who walks to larger x goes right
Path_ = Callable[[float], tuple[float, float] | None]


def told(frames: Iterable[tuple[float, Sequence[Detection]]], story: Story | None = None, **rules: Any) -> list[Event]:
    story = story or Story("p", "thing", Rules(**{"zones": {}, "lines": {}, "count_after_s": 0.0, **rules}))
    tracker, events = Tracker(itertools.count(1).__next__, stationary_s=2.0), []
    for at, found in frames:
        step = tracker.update(found, 0.5, at, 1e9 + at)
        events += story.next(step, list(found), SIZE, SampleRef(camera="c"))
    return events


def walk(path: Path_, rate: float = 10.0, seconds: float = 10.0, noise: float = 0.0) -> Any:
    random = np.random.default_rng(0)
    for number in range(int(rate * seconds)):
        where = path(number / rate)
        off = random.normal(0, noise, 2) if noise else (0.0, 0.0)
        yield number / rate, [] if where is None else [box(where[0] + off[0], where[1] + off[1])]


def across(at: float) -> tuple[float, float]:
    return 0.1 + 0.08 * at, 0.8


def kinds(events: Iterable[Event]) -> list[str]:
    return [event.event for event in events]


@pytest.mark.parametrize("rate", [25, 10, 5, 2.5])
def test_a_walk_through_a_zone_and_over_a_line(rate: float) -> None:
    away: list[Any] = [(at, []) for at in (10.5, 11.0, 11.5, 12.0, 12.5, 13.0)]
    events = told([*walk(across, rate), *away], zones={"yard": YARD}, lines={"gate": GATE}, min_seen=2)
    assert kinds(events) == ["appeared", "entered", "crossed", "left_zone", "left"]
    appeared, entered, crossed, out, left = events
    assert (crossed.line, crossed.direction) == ("gate", "right")
    assert 1e9 + 5.0 <= crossed.at <= 1e9 + 5.0 + 1.1 / rate + 0.2  # once it is clearly beyond
    assert entered.at == pytest.approx(1e9 + 3.75, abs=1.1 / rate)
    assert out.seconds == pytest.approx(2.5, abs=1.1 / rate + 0.3)
    assert (out.begun, left.begun) == (entered.id, appeared.id)
    assert left.seconds == pytest.approx(10, abs=2.2 / rate)
    assert left.start == pytest.approx((0.1, 0.8))
    assert len({event.id for event in events}) == 5
    assert {event.track for event in events} == {1}


def test_a_zone_of_any_name_has_counts_of_its_own() -> None:
    frames = [(at, [box(0.5, 0.8)]) for at in np.arange(0, 5, 0.1)]
    found = [e for e in told(frames, count_after_s=1.0, zones={"all": YARD}) if e.event == "count_changed"]
    assert [event.zone for event in found] == ["", "all"]
    assert len({event.id for event in found}) == 2


def test_what_waits_to_be_told_of_an_object_is_bounded() -> None:
    """Somebody who walks to and fro over a line for long, and is sure enough only in the end."""
    held = Story("p", "t", Rules({}, {"gate": GATE}, min_scores={"person": 0.9}, min_seen=1, count_after_s=0.0))
    step = Tracker(itertools.count(1).__next__).update([box(0.3, 0.8)], 0.5, 0.0, 1e9)
    for number in range(2 * MAX_HELD):
        found = [box(0.3 if number % 2 else 0.7, 0.8, score=0.6)]
        assert held.next(step, found, SIZE, SampleRef(camera="c")) == []
    events = held.next(step, [box(0.3, 0.8, score=0.95)], SIZE, SampleRef(camera="c"))
    assert (kinds(events)[0], len(events)) == ("appeared", 1 + MAX_HELD)


def test_the_way_back_is_the_other_direction() -> None:
    events = told(walk(lambda at: (0.1 + 0.08 * (at if at < 7 else 14 - at), 0.8), seconds=14), lines={"gate": GATE})
    assert [event.direction for event in events if event.event == "crossed"] == ["right", "left"]


def test_past_the_end_of_a_line_is_not_over_it() -> None:
    short = Line(points=((0.5, 0.5), (0.5, 0.2)))
    assert kinds(told(walk(across), lines={"gate": short})) == ["appeared"]


def test_who_hides_while_crossing_has_crossed() -> None:
    events = told(walk(lambda at: None if 4.5 < at < 5.5 else across(at)), lines={"gate": GATE})
    assert kinds(events) == ["appeared", "crossed"]


@pytest.mark.parametrize("seed", range(5))
def test_a_box_that_trembles_on_a_border_makes_one_event(seed: int) -> None:
    random = np.random.default_rng(seed)
    frames = [(at / 10, [box(0.5 + random.normal(0, 0.004), 0.5 + random.normal(0, 0.006))]) for at in range(300)]
    lower = Zone(points=((0.0, 0.5), (1.0, 0.5), (1.0, 1.0), (0.0, 1.0)))
    events = told(frames, zones={"lower": lower}, lines={"gate": GATE})
    assert kinds(events).count("entered") == 1
    assert "left_zone" not in kinds(events)
    assert kinds(events).count("crossed") <= 1


def test_dwelling_is_told_once_for_each_stay() -> None:
    zone = msgspec.structs.replace(YARD, dwell_s=3.0)

    def path(at: float) -> tuple[float, float]:
        return (0.5, 0.8) if at % 10 < 6 else (0.3, 0.8)

    frames = [(at, [box(*path(at)), box(0.9, 0.3)]) for at in np.arange(0, 16, 0.2)]
    steps: list[Any] = []
    for at, _ in frames:  # it goes slowly enough to be followed
        x = np.interp(at % 10, [0, 5, 6, 9, 10], [0.5, 0.5, 0.3, 0.3, 0.5])
        steps.append((at, [box(float(x), 0.8)]))
    events = [event for event in told(steps, zones={"yard": zone}) if event.event == "dwelled"]
    assert [event.zone for event in events] == ["yard", "yard"]
    assert all(event.seconds == pytest.approx(3.0, abs=0.25) for event in events)
    assert events[0].begun != events[1].begun


def test_who_stands_has_stopped_once() -> None:
    path = lambda at: (0.1 + 0.05 * min(at, 4.0), 0.8)  # noqa: E731
    assert kinds(told(walk(path, seconds=20, noise=0.001))) == ["appeared", "stopped"]


def test_what_is_seen_too_seldom_is_not_told_of() -> None:
    flashes = [(at / 10, [box(0.5, 0.8)] if at % 40 < 2 else []) for at in range(200)]
    assert told(flashes, zones={"yard": YARD}) == []
    assert kinds(told(flashes, zones={"yard": YARD}, min_seen=2))[:2] == ["appeared", "entered"]


def test_what_happened_before_it_was_sure_is_told_in_order() -> None:
    events = told(
        walk(lambda at: (0.35 + 0.2 * at, 0.8), rate=25, seconds=1.6),
        zones={"yard": YARD},
        lines={"gate": GATE},
        min_seen=36,
    )
    assert kinds(events) == ["appeared", "entered", "crossed", "left_zone"]
    assert events[1].at < events[0].at


def test_classes_and_scores_choose() -> None:
    frames = [(at / 10, [box(0.5, 0.8), box(0.9, 0.8, "dog", 0.6), box(0.1, 0.8, "cat", 0.6)]) for at in range(10)]
    assert {event.label for event in told(frames)} == {"person", "dog", "cat"}
    assert {event.label for event in told(frames, labels=("dog",))} == {"dog"}
    assert {event.label for event in told(frames, min_scores={"dog": 0.7})} == {"person", "cat"}
    dogs = Zone(points=((0, 0), (1, 0), (1, 1), (0, 1)), labels=("dog",))
    sure = msgspec.structs.replace(dogs, labels=(), min_score=0.8)
    entered = [(e.zone, e.label) for e in told(frames, zones={"d": dogs, "s": sure}) if e.event == "entered"]
    assert sorted(entered) == [("d", "dog"), ("s", "person")]


def test_counts_are_told_once_they_hold() -> None:
    there = [box(0.5, 0.8), box(0.9, 0.8)]
    frames = [(at / 10, there if 20 <= at < 80 and at not in (40, 41) else there[:1]) for at in range(140)]
    counts = [
        (e.zone, e.count) for e in told(frames, count_after_s=1.0, zones={"yard": YARD}) if e.event == "count_changed"
    ]
    assert counts == [("", 1), ("yard", 1), ("", 2), ("", 1)]


def test_foot_or_centre_decides() -> None:
    low = ((0.0, 0.75), (1.0, 0.75), (1.0, 1.0), (0.0, 1.0))
    frames = [(at / 10, [box(0.5, 0.8)]) for at in range(10)]
    assert "entered" in kinds(told(frames, zones={"z": Zone(points=low)}))
    assert "entered" not in kinds(told(frames, zones={"z": Zone(points=low, where="centre")}))


def test_a_foot_at_the_very_edge_is_in_a_zone_that_reaches_it() -> None:
    zone = Zone(points=((0, 0.5), (1, 0.5), (1, 1), (0, 1)))
    assert zone.depth((0.5, 1.0)) > 0.4
    assert zone.depth((0.0, 0.75)) > 0.2


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 99), st.integers(1, 99)), min_size=3, max_size=8, unique=True),
    st.tuples(st.integers(0, 100), st.integers(0, 100)),
)
def test_depth_is_that_of_opencv(corners: list[tuple[int, int]], at: tuple[int, int]) -> None:
    zone = Zone(points=tuple((x / 100, y / 100) for x, y in corners))
    expected = cv2.pointPolygonTest(np.array(corners, np.float32), (float(at[0]), float(at[1])), True) / 100
    assert abs(zone.depth((at[0] / 100, at[1] / 100))) == pytest.approx(abs(expected), abs=1e-4)
    if abs(expected) > 1e-4:
        assert (zone.depth((at[0] / 100, at[1] / 100)) > 0) == (expected > 0)
