"""What goes wrong in a component: in handlers, threads and changes, at its start and at its end."""

import signal
from pathlib import Path

import pytest

from component_support import echo
from edgeml.ending import STOP_TIMEOUT_S


def test_a_stop_that_hangs_is_cut_short(package: Path) -> None:
    assert STOP_TIMEOUT_S < 5  # when the nucleus kills
    with echo(package, stop_s=60, may_stop_s=0.3) as running:
        running.logged("started")
        assert running.stop() == 1
    assert "stop took longer than" in running.log


def test_sigterm_in_the_middle_of_a_change_is_answered_in_time(package: Path) -> None:
    with echo(package, may_stop_s=0.3) as running:
        running.logged("started")
        running.configure({"reconfigure_s": 60})
        running.message("changing")
        assert running.stop() == 1


def test_a_start_that_fails_stops_what_had_begun(package: Path) -> None:
    with echo(package, crash="start") as running:
        assert running.ended() == 1
    assert [line["topic"] for line in running.lines] == ["stopped"]


def test_a_handler_that_fails_does_not_end_the_others(package: Path) -> None:
    with echo(package) as running:
        running.send("say/it", "boom")
        running.send("say/it", "fine")
        assert running.message("said") == "fine"
        running.logged("handler failed topic=say/it")


def test_a_handler_that_fails_again_and_again_does_not_flood_the_log(package: Path) -> None:
    with echo(package) as running:
        for _ in range(100):
            running.send("say/it", "boom")
        running.send("say/it", "fine")
        assert running.message("said") == "fine"
        assert running.stop() == 0
    assert running.log.count("handler failed") == 7
    assert running.last("edgeml/health/Echo")["counters"]["messages.failed"] == 100


def test_a_thread_that_fails_leaves_the_others_at_work(package: Path) -> None:
    with echo(package, crash="thread") as running:
        running.logged("started")
        running.logged("ZeroDivisionError")
        running.send("say/it", 1)
        assert running.message("said") == 1
        assert running.stop() == 0
    report = running.last("edgeml/health/Echo")
    assert [(problem["code"], problem["subject"]) for problem in report["problems"]] == [("worker_failed", "worker")]


def test_a_thread_of_a_library_that_dies_is_told(package: Path) -> None:
    with echo(package, crash="foreign thread") as running:
        running.logged('ERROR edgeml.component thread died thread="of a library"')
        running.logged("started")
        assert running.stop() == 0
    (problem,) = running.message("edgeml/health/Echo")["problems"]
    assert problem["subject"] == "of a library"


def test_a_connection_lost_in_a_thread_ends_the_process(package: Path) -> None:
    with echo(package, crash="disconnected") as running:
        assert running.ended() == 1
    assert "ending: the socket is gone" in running.log


@pytest.mark.parametrize("where", ["start", "stop"])
def test_a_foreign_error_ends_in_words(package: Path, where: str) -> None:
    with echo(package, foreign=where) as running:
        if where == "stop":
            running.logged("started")
            running.process.send_signal(signal.SIGTERM)
        assert running.ended() == 1
    assert f"ERROR edgeml.component {where} failed unexpectedly: ZeroDivisionError" in running.log


def test_a_foreign_error_in_a_change_keeps_what_runs(package: Path) -> None:
    with echo(package) as running:
        running.logged("started")
        running.configure({"foreign": "reconfigure"})
        running.logged("failed unexpectedly, going on: ZeroDivisionError")
        running.send("say/it", 1)
        assert running.message("said") == 1
        assert running.stop() == 0


def test_a_start_that_fails_says_why(package: Path) -> None:
    with echo(package, crash="start") as running:
        assert running.ended() == 1
    assert "ERROR edgeml.component no such thing" in running.log
