import pytest

from edgeml import messages
from edgeml.health import SAMPLES, Health


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


def test_latencies_are_bounded_to_the_recent_ones() -> None:
    health = Health("edgeml.X", "1")
    for _ in range(SAMPLES):
        health.observe("read", 1.0)
    for _ in range(SAMPLES):
        health.observe("read", 0.001)
    assert health.report().latency_ms["read"].p99 == 1.0


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
