import logging

import pytest

from edgeml.backoff import Backoff
from edgeml.health import Health
from edgeml.pace import Throttle
from edgeml.problems import ADVICE, MAX_PROBLEMS, MAX_TEXT, Problems


def test_a_problem_lasts_from_found_to_cleared(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    health = Health("edgeml.X", "1.0.0")
    for _ in range(3):
        health.problems.found("source_failed", "door", "no such device")
    (problem,) = health.report().problems
    assert (problem.code, problem.subject, problem.text) == ("source_failed", "door", "no such device")
    health.problems.found("source_failed", "door", "permission denied")
    (later,) = health.report().problems
    assert later.text == "permission denied"
    assert later.since == pytest.approx(problem.since, abs=0.1)
    health.problems.cleared("source_failed", "door")
    health.problems.cleared("source_failed", "door")
    assert health.report().problems == ()
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING", "INFO"]


def test_problems_of_a_part_that_is_gone_are_forgotten() -> None:
    problems = Problems()
    for subject in ("camera.a", "camera.a.s3", "camera.ab"):
        problems.found("refused", subject, "no")
    problems.forget("camera.a")
    assert [problem.subject for problem in problems.current()] == ["camera.ab"]


@pytest.mark.parametrize("count", [0, 1, MAX_PROBLEMS - 1, MAX_PROBLEMS, MAX_PROBLEMS + 1, MAX_PROBLEMS + 10])
def test_a_flood_of_subjects_does_not_fill_the_memory(count: int) -> None:
    problems = Problems()
    for number in range(count):
        problems.found("refused", str(number), "no")
    kept = min(count, MAX_PROBLEMS)
    assert [problem.subject for problem in problems.current()] == [str(number) for number in range(kept)]
    for number in range(kept):  # and there is room again for as many
        problems.cleared("refused", str(number))
        problems.found("clock", str(number), "no")
    assert len(problems.current()) == kept


@pytest.mark.parametrize("length", [0, 1, MAX_TEXT - 1, MAX_TEXT, MAX_TEXT + 1])
def test_a_text_is_cut(length: int) -> None:
    problems = Problems()
    problems.found("refused", "x", "e" * length)
    assert [problem.text for problem in problems.current()] == ["e" * min(length, MAX_TEXT)]


def test_codes_come_from_the_list_and_each_says_what_to_do() -> None:
    with pytest.raises(ValueError, match="no problem code"):
        Problems().found("nonsense", "x", "y")
    assert all(sentence.endswith(".") for sentence in ADVICE.values())


def test_backoff_doubles_up_to_its_ceiling_and_starts_anew() -> None:
    backoff = Backoff(first_s=1, ceiling_s=8, floor_s=0.25)
    for limit in (1, 2, 4, 8, 8):
        assert 0.25 <= backoff.next() <= limit
    backoff.reset()
    assert backoff.next() <= 1
    for failed, most in [(0, 0.5), (1, 1.0), (4, 8.0), (7, 60.0), (10_000, 60.0)]:  # the defaults, in full
        draws = [Backoff(failures=failed).next() for _ in range(1000)]
        assert 0 <= min(draws) < 0.05 * most
        assert 0.95 * most < max(draws) <= most
    assert Backoff(first_s=1, ceiling_s=5, failures=10**9).next() <= 5


def test_a_throttle_speaks_of_the_1st_2nd_4th_8th() -> None:
    throttle = Throttle()
    assert [n for n in range(1, 20) if throttle.due()] == [1, 2, 4, 8, 16]
