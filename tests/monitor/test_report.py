"""Reports to AWS IoT Core: what is in them, that they are small whatever is wrong, and when they are sent."""

import itertools
import json
import zlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.clock import UNSYNCHRONISED, restamped
from edgeml.messages import Problem
from monitor.report import AT_ONCE_S, LOOK_S, MAX_BYTES, TIMES, Due, Report, Running, Why, Wrong, fitted, made
from monitor.state import State
from monitor.vitals.check import Vital
from monitor_support import QUIET
from support import Standalone

TOPIC = "edgeml/device/press-1/report"
HEALTH: dict[str, Any] = {
    "component": "edgeml.Inferencer",
    "version": "1.1.0",
    "at": 1.0,
    "uptime_s": 1.0,
    "counters": {},
    "rates": {"results": 2.5, "idle": 0.0},
    "latency_ms": {},
    "gauges": {"outbox.waiting": 3, "outbox.dropped": 0, "s3.dropped": 2, "s3.waiting": 0, "other": 5},
    "notes": {},
    "last_error": None,
    "problems": [{"code": "unreachable", "subject": "outbox", "text": "no network", "since": 5.0}],
}


def decoded(data: bytes) -> Report:
    return msgspec.json.decode(data, type=Report, strict=True)


def test_what_is_known_is_in_it() -> None:
    own = Problem(code="clock", subject="device", text="not set", since=7.0)
    vitals = {"temperature": Vital(61.25, unit="celsius"), "broken": Vital(float("nan"))}
    state = State("press-1", "1.1.0", lambda: (own,), vitals=lambda: vitals)
    state.heard("edgeml/health/Inferencer", json.dumps(HEALTH).encode())
    report = decoded(fitted(made(state, "problem")))
    assert (report.thing, report.version, report.why) == ("press-1", "1.1.0", "problem")
    assert set(report.components.values()) == {Running("1.1.0", "running")}
    assert report.components.keys() == {"edgeml.Monitor", "edgeml.Inferencer"}
    assert [(item.component, item.code) for item in report.problems] == [
        ("edgeml.Monitor", "clock"),  # the newest first
        ("edgeml.Inferencer", "unreachable"),
    ]
    depths = {"Inferencer.outbox.waiting": 3, "Inferencer.s3.waiting": 0, "Inferencer.s3.dropped": 2}
    assert report.spools == depths
    assert report.rates == {"Inferencer.results": 2.5}
    assert report.vitals == {"temperature": 61.25}
    assert not report.left_out


texts = st.text(st.characters(codec=None), max_size=200)
numbers = st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.builds(
        Report,
        thing=texts.map(lambda text: text[:128]),
        at=numbers,
        version=st.just("1.1.0"),
        why=st.just("problem"),
        components=st.dictionaries(texts, st.builds(Running, version=texts, status=texts), max_size=40),
        problems=st.lists(st.builds(Wrong, texts, texts, texts, texts, numbers), max_size=40),
        spools=st.dictionaries(texts, numbers, max_size=40),
        vitals=st.dictionaries(texts, numbers, max_size=40),
        rates=st.dictionaries(texts, numbers, max_size=40),
        left_out=st.just({}),
        clock=st.just(""),
    )
)
def test_it_is_small_whatever_there_is_and_says_what_is_missing(report: Report) -> None:
    data = fitted(report)
    assert len(data) <= MAX_BYTES
    sent = decoded(data)
    for part in ("rates", "vitals", "spools", "components", "problems"):
        whole = json.loads(msgspec.json.encode(getattr(decoded(fitted(report, 1 << 30)), part)))
        assert len(getattr(sent, part)) + sent.left_out.get(part, 0) == len(whole), part
    late = restamped(data, TIMES, 1e6, certain=False)
    assert len(late) <= 4096
    assert decoded(late).clock == UNSYNCHRONISED


def test_of_a_device_full_of_problems_the_newest_are_told() -> None:
    problems = [Problem(code="clock", subject=f"n{n}", text="x" * 290, since=float(n)) for n in range(60)]
    state = State("press-1", "1.1.0", lambda: problems)
    report = decoded(fitted(made(state, "interval")))
    assert report.problems[0].subject == "n59"
    assert len(report.problems) + report.left_out["problems"] == 60
    assert len(report.problems) > 10


EVERY_S = 300.0
NONE: frozenset[Any] = frozenset()
A, B = frozenset("a"), frozenset("b")
# (seconds, problems then, why a report is sent)
COURSES: dict[str, list[tuple[float, frozenset[Any], Why | None]]] = {
    "nothing is wrong": [(0, NONE, None), (EVERY_S - 1, NONE, None)],
    "a problem at the start": [(0, A, "problem"), (1, A, None)],
    "it begins and ends": [(0, NONE, None), (5, A, "problem"), (AT_ONCE_S + 5, NONE, "problem")],
    "it ends within the minute": [(5, A, "problem"), (6, NONE, None), (AT_ONCE_S + 5, NONE, "problem")],
    "it flaps": [(5, A, "problem"), (6, NONE, None), (7, A, None), (AT_ONCE_S + 6, A, None)],
    "another one comes": [(5, A, "problem"), (6, A | B, None), (AT_ONCE_S + 4, B, None), (AT_ONCE_S + 5, B, "problem")],
}


@pytest.mark.parametrize("course", COURSES)
def test_a_change_is_told_at_once_but_not_all_the_time(course: str) -> None:
    last = next(name for name in map(str, itertools.count()) if zlib.crc32(name.encode()) > 0.999 * 2**32)
    due = Due(last, EVERY_S, 0.0)  # of the fleet the last one in an interval
    for seconds, problems, why in COURSES[course]:
        assert due.why(problems, seconds) == why, seconds


def test_a_fleet_is_spread_over_the_interval() -> None:
    firsts = []
    for number in range(200):
        due = Due(f"edgeml-press-{number}", EVERY_S, 1000.0)
        times = [1000 + second for second in range(int(3 * EVERY_S)) if due.why(NONE, 1000.0 + second)]
        assert [later - sooner for sooner, later in pairwise(times)] == [EVERY_S] * (len(times) - 1)
        firsts.append(times[0] - 1000)
    tenths = {int(10 * first / EVERY_S) for first in firsts}
    assert tenths == set(range(10))


def test_a_stall_is_no_reason_to_catch_up() -> None:
    due = Due("thing", EVERY_S, 0.0)
    assert due.why(NONE, 10 * EVERY_S) == "interval"
    assert due.why(NONE, 10 * EVERY_S + 1) is None


@pytest.fixture
def thing() -> dict[str, str]:
    return {"AWS_IOT_THING_NAME": "press-1"}


def test_a_problem_is_on_its_way_in_seconds(tmp_path: Path, thing: dict[str, str]) -> None:
    with Standalone("monitor", QUIET, tmp_path, env=thing) as running:
        running.logged("page address=")
        running.send("edgeml/health/Inferencer", HEALTH)
        report = running.message(TOPIC, LOOK_S + 20)
        assert report["why"] == "problem"
        assert report["problems"][0]["code"] == "unreachable"
        assert running.lines[-1]["channel"] == "iot_core"


@pytest.mark.parametrize(("config", "heard"), [({"report_s": 1}, True), ({"report_s": 0}, False)])
def test_an_interval_or_none(tmp_path: Path, thing: dict[str, str], config: dict[str, Any], heard: bool) -> None:
    with Standalone("monitor", {**QUIET, **config}, tmp_path, env=thing) as running:
        running.logged("page address=")
        if heard:
            assert running.message(TOPIC, count=2)["why"] == "interval"
        running.configure({**QUIET, "report_s": 0 if heard else 1})
        running.logged("configuration changed")
        if not heard:
            assert running.message(TOPIC)["thing"] == "press-1"
    assert (tmp_path / "reports.spool").exists()


def test_a_spool_that_cannot_be_is_asked_for_again(tmp_path: Path, thing: dict[str, str]) -> None:
    (tmp_path / "reports.spool").mkdir()
    with Standalone("monitor", {**QUIET, "report_s": 1}, tmp_path, env=thing) as running:
        running.logged("page address=")
        running.message("edgeml/health/Monitor")
        assert running.stop() == 0
    assert "Traceback" not in running.log
