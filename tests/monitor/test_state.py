"""What is kept of what components say, and of what strangers say in their place."""

import json
import math
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from edgeml.messages import Problem
from monitor import reports as bounds
from monitor.state import State
from monitor_support import QUIET, Clock
from support import Standalone, eventually

PROBLEM = {"code": "clock", "subject": "device", "text": "not set", "since": 5.0}


def report(**changes: Any) -> bytes:
    plain: dict[str, Any] = {"component": "edgeml.X", "version": "1.1.0", "at": 1.0, "uptime_s": 1.0, "counters": {}}
    plain |= {"rates": {}, "latency_ms": {}, "gauges": {}, "notes": {}, "last_error": None}
    return json.dumps(plain | changes).encode()


def made(clock: Clock, *own: Problem) -> State:
    return State("thing", "1.1.0", lambda: own, clock)


AGES = {0.0: "running", bounds.SILENT_S: "running", bounds.SILENT_S + 1: "silent", bounds.FORGOTTEN_S: "silent"}


@pytest.mark.parametrize("age", AGES)
def test_silence_is_told_in_time(age: float) -> None:
    clock = Clock()
    state = made(clock)
    assert state.heard("edgeml/health/X", report(problems=[PROBLEM]))
    clock.now += age
    (component,) = state.snapshot().components
    assert component.status == AGES[age]
    assert [item.code for item in state.attention()] == ["clock" if AGES[age] == "running" else "silent"]
    clock.now = 1000 + bounds.FORGOTTEN_S + 1
    assert not state.attention()
    assert not state.snapshot().components


def test_rates_have_a_bounded_history_and_notes_are_what_is_waited_for() -> None:
    state = made(Clock())
    for number in range(bounds.HISTORY + 5):
        state.heard("edgeml/health/X", report(rates={"frames": number}, notes={"faces.camera": "waiting for camera c"}))
    (component,) = state.snapshot().components
    assert (component.status, component.waiting_for) == ("waiting", "waiting for camera c")
    assert component.rates == {"frames": bounds.HISTORY + 4}
    assert component.history["frames"] == [float(number) for number in range(5, bounds.HISTORY + 5)]


def test_problems_of_all_are_told_oldest_first_with_what_to_do() -> None:
    own = Problem(code="disk_full", subject="/", text="full", since=9.0)
    state = made(Clock(), own)
    state.heard("edgeml/health/X", report(problems=[PROBLEM, PROBLEM | {"code": "of a later version", "since": 7}]))
    found = [(item.component, item.code, bool(item.advice)) for item in state.attention()]
    assert found == [
        ("edgeml.X", "clock", True),
        ("edgeml.X", "of a later version", False),
        ("edgeml.Monitor", "disk_full", True),
    ]


REFUSED = {
    "nothing": b"",
    "no JSON": b"\xff",
    "no report": b"{}",
    "deep": b"[" * 10_000,
    "another type": report(rates={"x": "many"}),
    "too large": report(notes={"x": "x" * bounds.MAX_REPORT_BYTES}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_report_is_refused(case: str) -> None:
    state = made(Clock())
    assert not state.heard("edgeml/health/X", REFUSED[case])
    assert not state.snapshot().components


def test_a_flood_of_names_and_rates_does_not_grow_it() -> None:
    state = made(Clock())
    rates = {f"r{number}": number for number in range(500)}
    taken = [state.heard(f"edgeml/health/c{number}", report(rates=rates)) for number in range(1000)]
    assert sum(taken) == bounds.MAX_COMPONENTS
    assert not state.heard(f"edgeml/health/{'x' * (bounds.MAX_NAME + 1)}", report())
    for turn in range(100):
        state.heard("edgeml/health/c0", report(rates={f"t{turn}-{number}": 1 for number in range(500)}))
    assert max(len(component.history) for component in state.snapshot().components) == bounds.MAX_RATES
    assert state.heard("edgeml/health/c1", report())  # who was there first is still heard


def test_what_json_has_no_number_for_is_left_out() -> None:
    state = made(Clock())
    state.heard(
        "edgeml/health/X", report(rates={"a": "nan", "b": "inf", "c": 1}, problems=[PROBLEM | {"since": "nan"}])
    )
    snapshot = state.snapshot()
    assert snapshot.components[0].rates == {"c": 1}
    assert all(math.isfinite(item.since) for item in snapshot.attention)
    assert msgspec.json.encode(snapshot)


def test_state_and_reasons_are_for_who_has_signed_in(tmp_path: Path) -> None:
    with Standalone("monitor", QUIET, tmp_path / "work") as running:
        eventually(lambda: "address=http://" in running.log, what="the page's address")
        base = running.log.partition("address=")[2].split()[0]
        text = "one\nline <b>"
        running.send("edgeml/health/X", json.loads(report(problems=[PROBLEM | {"text": text}])))
        with httpx.Client(base_url=base, trust_env=False, timeout=10) as client:
            eventually(lambda: client.get("/healthz").status_code == 503, what="the problem")
            assert client.get("/healthz").text == "edgeml.X\n"
            assert client.get("/api/state").status_code == 401
            client.post("/sign-in", data={"password": (tmp_path / "work" / "password").read_text().strip()})
            assert client.get("/healthz").text == "edgeml.X clock device: one line <b>\n"
            state = client.get("/api/state")
            assert state.headers["content-type"] == "application/json"
            assert state.json()["attention"][0]["text"] == text
