import pytest

from edgeml import messages
from edgeml.errors import SecretError, SpoolError, StudioError
from edgeml.health import MAX_ERROR, MAX_NOTE, MAX_PROBLEMS, SAMPLES, Health


def test_a_report_holds_counts_rates_percentiles_gauges_and_notes() -> None:
    health = Health("edgeml.X", "1.2.3")
    health.count("frames", 10)
    health.count("frames")
    for milliseconds in range(100):
        health.observe("read", milliseconds / 1000)
    health.gauge("queue", lambda: 4)
    health.note("model", "waiting")
    health.error(ValueError("lost"))
    report = health.report()
    assert (report.component, report.version, report.last_error) == ("edgeml.X", "1.2.3", "lost")
    assert report.counters == {"frames": 11}
    assert report.rates["frames"] > 0
    assert (report.latency_ms["read"].p50, report.latency_ms["read"].p99) == (50.0, 99.0)
    assert report.gauges == {"queue": 4.0}
    assert report.notes == {"model": "waiting"}


def test_rates_are_since_the_report_before() -> None:
    health = Health("edgeml.X", "1")
    health.count("frames", 5)
    health.report()
    assert health.report().rates["frames"] == 0.0


@pytest.mark.parametrize(
    ("count", "slowest_ms"), [(0, 1000.0), (SAMPLES - 12, 1000.0), (SAMPLES - 11, 1000.0), (SAMPLES - 10, 1.0)]
)
def test_latencies_are_bounded_to_the_recent_ones(count: int, slowest_ms: float) -> None:
    health = Health("edgeml.X", "1")
    for seconds in [1.0] * 11 + [0.001] * count:
        health.observe("read", seconds)
    assert health.report().latency_ms["read"].p99 == slowest_ms


@pytest.mark.parametrize("length", [0, 1, MAX_NOTE - 1, MAX_NOTE, MAX_NOTE + 1, MAX_ERROR, MAX_ERROR + 1])
def test_notes_and_errors_are_cut(length: int) -> None:
    health = Health("edgeml.X", "1")
    health.note("a", "n" * length)
    health.error("e" * length)
    report = health.report()
    assert report.notes == ({"a": "n" * min(length, MAX_NOTE)} if length else {})
    assert report.last_error == "e" * min(length, MAX_ERROR)


@pytest.mark.parametrize("count", [0, 1, MAX_PROBLEMS - 1, MAX_PROBLEMS, MAX_PROBLEMS + 1])
def test_a_report_tells_of_so_many_problems(count: int) -> None:
    health = Health("edgeml.X", "1")
    for number in range(count):
        health.problems.found("clock", str(number), "not set")
    assert len(health.report().problems) == min(count, MAX_PROBLEMS)


def test_a_part_that_is_gone_leaves_nothing_but_its_counts() -> None:
    health = Health("edgeml.X", "1")
    health.gauge("pipelines.a.queue", lambda: 1)
    health.note("pipelines.a.model", "waiting")
    health.count("pipelines.a.done")
    health.note("pipelines.ab.model", "stays")
    health.note("pipelines.a", "bad")
    health.forget("pipelines.a")
    report = health.report()
    assert (report.gauges, report.notes) == ({}, {"pipelines.ab.model": "stays"})
    assert report.counters == {"pipelines.a.done": 1}


def test_a_scope_says_of_its_part_what_the_whole_would_under_longer_names() -> None:
    whole, parts = Health("edgeml.X", "1"), Health("edgeml.X", "1")
    part = parts.scope("pipelines.a")
    whole.count("pipelines.a.done", 2)
    part.count("done", 2)
    whole.observe("pipelines.a.read", 0.5)
    part.observe("read", 0.5)
    whole.gauge("pipelines.a.queue", lambda: 1)
    part.gauge("queue", lambda: 1)
    whole.note("pipelines.a", "bad")
    part.note("bad")
    whole.note("pipelines.a.model", "waiting")
    part.scope("model").note("waiting")
    whole.error("lost")
    part.error("lost")
    whole.problems.found("clock", "pipelines.a", "not set")
    part.found("clock", "not set")
    told = [(r.counters, r.gauges, r.notes, r.last_error, r.latency_ms) for r in (whole.report(), parts.report())]
    assert told[0] == told[1]
    assert [(p.code, p.subject, p.text) for p in parts.problems.current()] == [("clock", "pipelines.a", "not set")]
    part.cleared("clock")
    assert parts.problems.current() == ()
    part.found("clock", "not set")
    part.forget()
    assert (parts.report().gauges, parts.report().notes, parts.problems.current()) == ({}, {}, ())


@pytest.mark.parametrize(
    ("error", "code"),
    [(StudioError("away"), "unreachable"), (SecretError("none"), "secret_missing"), (SpoolError("full"), "disk_full"),
     (OSError(5, "broken"), "disk_full"), (ValueError(), "disk_full")],
)  # fmt: skip
def test_an_error_is_the_problem_that_its_class_says(error: Exception, code: str) -> None:
    health = Health("edgeml.X", "1")
    part = health.scope("studio")
    part.failed(StudioError("before"))
    part.failed(error, "disk_full")
    (problem,) = health.problems.current()
    assert (problem.code, problem.subject, problem.text) == (code, "studio", str(error) or "ValueError")
    assert health.report().last_error == str(error)
    part.well()
    part.well()
    assert health.problems.current() == ()


def test_a_gauge_that_fails_leaves_the_others(caplog: pytest.LogCaptureFixture) -> None:
    health = Health("a", "1")
    health.gauge("good", lambda: 1.0)
    health.gauge("bad", lambda: 1 / 0)
    health.gauge("endless", lambda: float("inf"))
    health.gauge("none", lambda: float("nan"))
    for _ in range(3):
        assert health.report().gauges == {"good": 1.0}
    assert health.counter("gauges.failed") == 3
    assert caplog.text.count("ZeroDivisionError: ") == 1


def test_a_name_that_is_no_unicode_keeps_no_report_from_being_sent() -> None:
    health = Health("a", "1")
    health.note("log.\udce9.log", "cannot read \udce9.log")
    health.error("\ud800")
    report = messages.decode(messages.encode(health.report()), messages.HealthReport)
    assert report.notes == {"log.\\udce9.log": "cannot read \\udce9.log"}
    assert report.last_error == "\\ud800"
