"""Times that lines claim: in which zone, and whether they can be true."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Self

import pytest

from clock_support import FakeClock
from log_shipper import times
from log_shipper.errors import ZoneError
from log_shipper.parse import Parser
from log_shipper.times import Correction, Window, Zone, claimed_ms, iso_ms

NOW = 1_795_255_200.0  # 2026-11-21T10:00:00Z
ARRIVAL = int(NOW * 1000)
AUTUMN, SPRING = "2026-10-25", "2026-03-29"  # when Berlin's clocks are set


def utc(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc,arg-type]


def times_of(text: str, zone: str, arrival: int = ARRIVAL) -> list[int]:
    return Parser("TRACE", None, rejoin_tracebacks=True, zone=Zone(zone)).parse(text, arrival).times


@pytest.mark.parametrize(
    ("line", "hours"),
    [
        ("2026-11-21 19:00:00 local", 10),
        ("2026-11-21 19:00:00,000 INFO root: Python's logging", 10),
        ("2026-11-21T19:00:00.000 [INFO] (main) a: b", 10),
        ("2026-11-21T10:00:00Z", 10),
        ("2026-11-21T10:00:00.5z", 10 + 0.5 / 3600),
        ("2026-11-21 10:00:00 UTC [1] LOG", 10),
        ("2026-11-21 10:00:00 GMT", 10),
        ("2026-11-21 10:00:00 Z x", 10),
        ("2026-11-21 19:00:00+09 x", 10),
        ("2026-11-21 19:00:00 +0900 x", 10),
        ("2026-11-21 19:00:00 +09:00", 10),
        ("2026-11-21 19:00:00,123456789012 +0900 x", 10),
        ("2026-11-21T04:00:00-06", 10),
        ("2026-11-21T15:30:00+0530[Asia/Kolkata] x", 10),
        ("2026-11-21 19:00:00-9999 no zone", 10),
        ("2026-11-21 19:00:00 +12 items", 10),
        ("2026-11-21 19:00:00 Zebra", 10),
        ('{"time":"2026-11-21 19:00:00"}', 10),
        ('{"time":"2026-11-21T19:00:00.000+09"}', 10),
        ('{"@timestamp":"2026-11-21 10:00:00 UTC"}', 10),
        ('{"ts":1795255200}', 10),
        ('{"ts":1795255200.000}', 10),
        ('{"ts":"1795255200"}', 10),
        ('{"ts":1795255200000}', 10),
        ('{"ts":1795255200000000}', 10),
        ('{"ts":1795255200000000000}', 10),
    ],
    ids=str,
)
def test_a_time_is_local_unless_it_names_a_zone(line: str, hours: float) -> None:
    for count in (1, 2):
        found = times_of(f"{line}\n" * count, "Asia/Tokyo")
        assert all(abs(moment - utc(2026, 11, 21) - hours * 3_600_000) < 600 for moment in found)
        assert len(found) == count


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_without_an_option_the_machine_says_which_zone(tokyo: None) -> None:
    zone = Zone()
    assert not zone.is_utc
    assert iso_ms("2026-11-21T19:00:00", zone) == ARRIVAL
    assert times_of("2026-11-21T19:00:00.000 [INFO] (main) a: b\n" * 3, "") == [ARRIVAL] * 3
    assert times_of("2026-11-21T10:00:00.000Z [INFO] (main) a: b\n" * 3, "") == [ARRIVAL] * 3


class Oldest(datetime):
    @classmethod
    def fromisoformat(cls, text: str) -> Self:
        """As Python 3.10 has it, by its documentation."""
        if not re.fullmatch(r"\d{4}-\d\d-\d\d(.\d\d(:\d\d(:\d\d(\.(\d{3}){1,2})?)?)?([+-]\d\d:\d\d.*)?)?", text):
            raise ValueError(text)
        return super().fromisoformat(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-11-21T10:00:00Z", 0),
        ("2026-11-21 10:00:00.250+09:00", -9 * 3600 + 0.25),
        ("2026-11-21T10:00Z", 0),
        ("2026-11-21T10:00+0100", -3600),
        ("2026-11-21T10:00", 0),
        ("2026-11-21T10", 0),
        ("2026-11-21", -36_000),
        ("20261121T100000Z", 0),
        ("20261121T100001,5+0100", -3598.5),
        ("20261121T1000", 0),
        ("20261121T1000Z", 0),
        ("20261321T1000Z", None),
        ("10:00", None),
    ],
)
def test_every_python_reads_the_same_times(text: str, seconds: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = None if seconds is None else ARRIVAL + round(seconds * 1000)
    zone = Zone("UTC")
    assert iso_ms(text, zone) == expected
    monkeypatch.setattr(times, "datetime", Oldest)
    assert iso_ms(text, zone) == expected


def test_of_the_hour_that_comes_twice_the_order_of_lines_and_their_arrival_tell_which() -> None:
    text = "".join(f"{AUTUMN} {clock} x\n" for clock in ("02:00:00", "02:59:59", "02:00:00", "02:58:00", "03:00:00"))
    first = utc(2026, 10, 25, 0)
    expected = [0, 3599, 3600, 7080, 7200]
    found = times_of(f"{AUTUMN} 01:59:59 x\n{text}", "Europe/Berlin")
    assert [(moment - first) // 1000 for moment in found] == [-1, *expected]
    early = first + 1_800_000  # written in the first hour, so that it cannot be of the second
    assert times_of(f"{AUTUMN} 02:30:00 x\n", "Europe/Berlin", early) == [early]
    assert times_of(f"{AUTUMN} 02:30:00 x\n", "Europe/Berlin", early + 3_600_000) == [early + 3_600_000]


def test_the_hour_that_is_missing_loses_no_line_its_time() -> None:
    found = times_of(f"{SPRING} 01:59:59 x\n{SPRING} 02:30:00 x\n{SPRING} 03:00:00 x\n", "Europe/Berlin")
    assert [(moment - utc(2026, 3, 29, 1)) // 1000 for moment in found] == [-1, 1800, 0]


@pytest.mark.parametrize("name", ["Nowhere/Town", "Asia", "../etc/passwd", "/etc/passwd", "+9", "\0"], ids=repr)
def test_a_zone_that_is_not_known_is_said(name: str) -> None:
    with pytest.raises(ZoneError, match="local time"):
        Zone(name)


def test_a_machine_without_zones_is_told_to_install_them(monkeypatch: pytest.MonkeyPatch) -> None:
    import zoneinfo

    monkeypatch.setattr(zoneinfo, "TZPATH", ())
    monkeypatch.setattr(zoneinfo, "available_timezones", set)
    with pytest.raises(ZoneError, match="install tzdata"):
        Zone("Nowhere/Town")
    assert Zone("UTC").is_utc
    assert Zone("+09:00").utc_ms(9 * 3_600_000, 2**60, 0) == 0


@pytest.mark.parametrize(
    ("days", "claimed", "kept"),
    [
        (14, -13.9, True),
        (14, -14.1, False),
        (1, -0.9, True),
        (1, -1.1, False),
        (0, -1000, True),
        (0, -20_000, False),
        (14, 0.07, True),
        (14, 0.09, False),
        (0, 0.09, False),
        (14, 20_000, False),
    ],
)
def test_what_the_receiver_does_not_take_goes_with_its_arrival(days: int, claimed: float, kept: bool) -> None:
    window = Window(days, now=lambda: NOW)
    moment = ARRIVAL + int(claimed * 86_400_000)
    assert window.believed([ARRIVAL, moment], ARRIVAL - 7) == [ARRIVAL, moment if kept else ARRIVAL - 7]
    assert window.believed([moment], 5) == [moment if kept else ARRIVAL]  # an arrival that is none is now


def test_lines_written_before_the_clock_was_set_get_their_true_time() -> None:
    for wrong in (5.0, NOW - 9 * 86_400, NOW + 900 * 86_400):
        clock = FakeClock(wrong, uptime=5.0)
        correction = Correction(clock)
        window = Window(14, now=lambda: NOW, correction=correction)
        clock.pass_s(100)
        correction.look()
        assert correction.shift == 0
        clock.synchronise(NOW)
        correction.look()
        claimed = [int((wrong + second) * 1000) for second in (-4, 0, 60, 99)] + [ARRIVAL - 1]
        assert [moment - ARRIVAL for moment in window.believed(claimed, ARRIVAL)] == [
            *[-104_000, -100_000, -40_000, -1_000],
            -1,
        ]


def test_a_clock_that_was_right_corrects_nothing() -> None:
    clock = FakeClock(NOW, uptime=5.0, synchronised=True)
    correction = Correction(clock)
    clock.synchronise(NOW + 3600)
    correction.look()
    assert correction.shift == 0


def test_claims_of_any_type_are_times_or_none() -> None:
    zone = Zone("UTC")
    values: list[object] = [None, [], {}, "x", "", "9" * 400, 2**80, -1, 1e300, float("inf"), float("nan"), "\ud800"]
    for value in values:
        assert claimed_ms(value, zone, ARRIVAL, 0) is None
