"""Rounds of checks: what is found, what is over, and what a check that fails or hangs costs."""

import threading
from collections.abc import Callable
from contextlib import suppress

import pytest

from edgeml.problems import Problems
from monitor.vitals.asked import Asked
from monitor.vitals.check import Check, Finding, Seen, Standing, Vital
from monitor.vitals.limits import CheckName, Limits
from monitor.vitals.watch import Watch

LOW = Finding("memory_low", "memory", "little is left")
HOT = Finding("too_hot", "cpu", "hot")


class Sensor:
    """Its check finds what `findings` are at the time; None: there is no sensor."""

    def __init__(self, name: CheckName, *findings: Finding) -> None:
        self.findings: tuple[Finding, ...] | None = findings
        self.standing: list[set[tuple[str, str]]] = []
        self.check = Check(name, lambda: self.findings, self._judge)

    def _judge(self, found: tuple[Finding, ...], limits: Limits, standing: Standing) -> Seen:
        self.standing.append(set(standing))
        return Seen({self.check.name: Vital(len(found), problem=bool(found))}, found)


def codes(problems: Problems) -> list[str]:
    return [problem.code for problem in problems.current()]


def test_a_problem_is_over_when_two_rounds_do_not_find_it() -> None:
    problems, memory, heat = Problems(), Sensor("memory", LOW), Sensor("temperature", HOT)
    watch = Watch([memory.check, heat.check], problems)
    watch.round(Limits())
    assert codes(problems) == ["memory_low", "too_hot"]
    since = problems.current()[0].since
    for findings in ((), (LOW,), ()):  # at the border: it stays one and the same
        memory.findings = findings
        watch.round(Limits())
        assert codes(problems) == ["memory_low", "too_hot"]
    assert problems.current()[0].since == pytest.approx(since, abs=0.1)
    watch.round(Limits())
    assert codes(problems) == ["too_hot"]
    assert memory.standing == [set(), {LOW[:2]}, {LOW[:2]}, {LOW[:2]}, {LOW[:2]}]


def test_a_sensor_that_is_gone_leaves_nothing() -> None:
    problems, memory = Problems(), Sensor("memory", LOW)
    watch = Watch([memory.check], problems)
    watch.round(Limits())
    memory.findings = None
    watch.round(Limits())
    watch.round(Limits())
    assert not problems.current()
    assert not watch.vitals()


def test_a_check_that_is_off_leaves_nothing_at_once() -> None:
    problems, memory, heat = Problems(), Sensor("memory", LOW), Sensor("temperature", HOT)
    watch = Watch([memory.check, heat.check], problems)
    watch.round(Limits())
    watch.round(Limits(skip=("memory",)))
    assert codes(problems) == ["too_hot"]
    assert watch.vitals().keys() == {"temperature"}
    assert len(memory.standing) == 1
    watch.round(Limits())
    assert codes(problems) == ["too_hot", "memory_low"]


def test_a_check_that_fails_costs_the_others_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def read() -> None:
        raise ValueError("a strange kernel")

    problems, memory = Problems(), Sensor("memory", LOW)
    watch = Watch([Check("disk", read, memory.check.judge), memory.check], problems)
    for _ in range(3):
        watch.round(Limits())
    assert codes(problems) == ["memory_low"]
    assert caplog.text.count("check failed check=disk") == 1


class Now:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def threads(work: Callable[[], None]) -> None:
    def contained() -> None:
        with suppress(ValueError):
            work()

    thread = threading.Thread(target=contained)
    thread.start()
    thread.join(0.2)


def test_what_is_asked_for_is_asked_in_its_time() -> None:
    clock, asked = Now(), list[int]()

    def question() -> int:
        asked.append(len(asked))
        return len(asked)

    one = Asked(question, threads, timeout_s=10, first_s=5, every_s=60, clock=clock)
    for clock.now, times in ((0, 0), (4.9, 0), (5, 1), (64.9, 1), (65, 2)):
        one.look()
        assert (len(asked), one.answer, one.failures) == (times, times or None, 0)
    assert one.took_s == 0


@pytest.mark.parametrize("error", [OSError("expected"), ValueError("not expected")])
def test_failures_in_a_row_are_counted_and_an_answer_ends_them(error: Exception) -> None:
    answers: list[Exception | str] = [error, error, "well", error]

    def question() -> str:
        answer = answers.pop(0)
        if isinstance(answer, str):
            return answer
        raise answer

    one = Asked(question, threads, timeout_s=10, expected=(OSError,), clock=Now())
    for failures in (1, 2, 0, 1):
        one.look()
        assert one.failures == failures
    assert one.answer == "well"


def test_what_hangs_is_asked_once_and_counts_when_it_is_late() -> None:
    clock, release, begun = Now(), threading.Event(), list[threading.Thread]()

    def hang() -> str:
        release.wait(30)
        return "late"

    def spawn(work: Callable[[], None]) -> None:
        begun.append(threading.Thread(target=work))
        begun[-1].start()

    one = Asked(hang, spawn, timeout_s=10, clock=clock)
    for clock.now, failures in ((0, 0), (9.9, 0), (10, 1), (500, 2)):
        one.look()
        assert one.failures == failures
    assert len(begun) == 1
    release.set()
    begun[0].join(30)
    assert (one.answer, one.failures) == ("late", 0)
