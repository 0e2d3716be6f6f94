"""What CloudWatch Logs refuses, leaves out or answers wrongly, and clocks that jump: nothing is lost."""

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.log_rig import shipper
from faulty_logs import Fault, FaultySink, Request
from shipped_support import PREFIX, lines, text_of
from support import eventually


def test_a_clock_that_jumps_costs_lines_their_time_and_none_is_lost(tmp_path: Path, sink: FaultySink) -> None:
    def at(offset: timedelta, number: int) -> str:
        return f"{(began + offset).isoformat(timespec='milliseconds')[:23]}Z [INFO] (main) a: {number}"

    sink.enforce_age = True
    began = datetime.now(UTC)
    jumps = [timedelta(), -timedelta(days=20_000), timedelta(minutes=-5), timedelta(days=400), timedelta(hours=-30)]
    written = [at(jumps[number // 10 % 5], number) for number in range(100)]
    written += [f"0001-01-01T00:00:00Z [INFO] (main) Go's zero time: {number}" for number in range(2)]
    written += [f"1970-01-01T00:01:0{number}Z [INFO] (main) an uptime: {number}" for number in range(2)]
    with shipper(tmp_path, {}, AWS_ENDPOINT_URL=sink.url) as process:
        (process.logs / "edgeml.A.log").write_text(text_of(written))
        sink.wait_for(len(written))
        assert process.stop() == 0
    assert sink.counted() == Counter(written)
    arrived = {event.message: event.timestamp for event in sink.events}
    for number, text in enumerate(written[:100]):
        own = int((began + jumps[number // 10 % 5]).timestamp() * 1000)
        assert arrived[text] == own if number // 10 % 5 in (0, 2, 4) else abs(arrived[text] / 1000 - time.time()) < 60


def test_events_that_cloudwatch_leaves_out_for_their_time_are_sent_again_as_of_now(
    tmp_path: Path, sink: FaultySink
) -> None:
    """A group that keeps its events for a shorter time than we know of."""
    sink.keeps_ms = 2 * 3_600_000
    hours = [datetime.now(UTC) - timedelta(hours=number) for number in range(5, 0, -1)]
    written = [f"{hour.isoformat(timespec='milliseconds')[:23]}Z [INFO] (main) a: {hour.hour}" for hour in hours]
    with shipper(tmp_path, {}, AWS_ENDPOINT_URL=sink.url) as process:
        log = process.logs / "edgeml.A.log"
        log.write_text(text_of(written[:3]))
        sink.wait_for(3)
        with log.open("a") as file:
            file.write(text_of(written[3:]))
        sink.wait_for(5)
        assert process.stop() == 0
    assert sorted(sink.messages()) == sorted(written)
    counters = process.published("local")[-1]["payload"]["counters"]
    assert counters["events_retimed"] == counters["events_too_old"] >= 3
    assert all(event.timestamp > (time.time() - 7300) * 1000 for event in sink.events)


def test_a_line_that_is_refused_whatever_its_time_is_kept_in_quarantine_and_tried_again_after_a_restart(
    tmp_path: Path, sink: FaultySink
) -> None:
    poison = [f"{PREFIX}poison {number}" for number in range(3)]
    sink.fault = lambda request: (
        Fault(400, "InvalidParameterException", "Log event is not liked")
        if any("poison" in event["message"] for event in request.body.get("logEvents", []))
        else None
    )
    written = [*poison[:2], *lines(5), poison[2], *lines(5, 5)]
    with shipper(tmp_path, {}, AWS_ENDPOINT_URL=sink.url) as process:
        (process.logs / "edgeml.A.log").write_text(text_of(written))
        eventually(lambda: set(lines(10)) <= set(sink.messages()), what="all others")
        eventually(lambda: len(list((process.work / "quarantine").glob("*.json"))) == 3, what="the quarantine")
        assert process.stop() == 0
        health = process.published("local")[-1]["payload"]
        assert [problem["code"] for problem in health["problems"]] == ["quarantined"]
        assert health["counters"]["events_quarantined"] == 3
        sink.fault = lambda request: None
        process.start()
        eventually(lambda: set(poison) <= set(sink.messages()), what="the quarantined lines")
        eventually(lambda: not list((process.work / "quarantine").glob("*.json")), what="an empty quarantine")
    assert sink.counted() >= Counter(written)
    assert max(sink.counted(".A").values()) <= 2  # of notices in the place of a line there may be two


def test_a_receiver_that_refuses_everything_loses_and_quarantines_nothing(tmp_path: Path, sink: FaultySink) -> None:
    """Such as a name that is none, which only the first request tells."""
    answers = {
        "edgeml.Name": Fault(400, "InvalidParameterException", "1 validation error: Value at 'logStreamName' failed"),
        "edgeml.All": Fault(400, "InvalidParameterException", "no"),
        "edgeml.Wall": Fault(403, "", "<html>Blocked by policy</html>"),
        "edgeml.Right": Fault(400, "AccessDeniedException", "not allowed"),
    }
    sink.fault = lambda request: (
        answers.get(request.group.rpartition("/")[2]) if request.operation == "PutLogEvents" else None
    )
    with shipper(tmp_path, {}, AWS_ENDPOINT_URL=sink.url) as process:
        for name in [*answers, "edgeml.A"]:
            (process.logs / f"{name}.log").write_text(text_of(lines(4)))
        sink.wait_for(4, "edgeml.A")
        eventually(lambda: "refuses every event" in process.said(), what="that all is refused")
        process.configure({"periodicUploadIntervalSec": 0.06})
        eventually(lambda: "configuration changed" in process.said(), what="the change")
        assert not (process.work / "quarantine").exists()
        sink.fault = lambda request: None
        for name in answers:
            assert sink.wait_for(4, name) == lines(4)
        assert process.stop() == 0


def test_a_line_that_a_firewall_dislikes_does_not_keep_its_log(tmp_path: Path, sink: FaultySink) -> None:
    sink.fault = lambda request: (
        Fault(403, "", "<html>")
        if any("<script>" in event["message"] for event in request.body.get("logEvents", []))
        else None
    )
    with shipper(tmp_path, {"maxRetryDelaySec": 0.05}, AWS_ENDPOINT_URL=sink.url) as process:
        (process.logs / "edgeml.A.log").write_text(text_of([*lines(3), f"{PREFIX}<script>", *lines(3, 3)]))
        eventually(lambda: set(lines(6)) <= set(sink.messages()), what="the others")
        assert len(list((process.work / "quarantine").glob("*.json"))) == 1


def test_what_is_no_answer_of_cloudwatch_is_no_delivery(tmp_path: Path, sink: FaultySink) -> None:
    """A hotel's login page says 200 to everything."""
    pages = iter([Fault(200, "login", "page")] * 3)
    sink.fault = lambda request: next(pages, None) if request.operation == "PutLogEvents" else None
    sink.answers_html = True
    with shipper(tmp_path, {}, AWS_ENDPOINT_URL=sink.url) as process:
        (process.logs / "edgeml.A.log").write_text(text_of(lines(5)))
        assert sink.wait_for(5) == lines(5)
        assert "what answered is not CloudWatch Logs" in process.said()


def test_old_endpoints_and_a_retention_that_cannot_be_set_cost_nothing(tmp_path: Path, sink: FaultySink) -> None:
    answers = [Fault(400, "InvalidSequenceTokenException"), Fault(400, "DataAlreadyAcceptedException")]

    def fault(request: Request) -> Fault | None:
        if request.operation == "PutRetentionPolicy":
            return Fault(400, "AccessDeniedException", "not allowed")
        made = any(made.operation == "CreateLogStream" for made in sink.requests[:-1])
        return answers.pop(0) if answers and request.operation == "PutLogEvents" and made else None

    sink.fault = fault
    with shipper(tmp_path, {"retentionDays": 1}, AWS_ENDPOINT_URL=sink.url) as process:
        log = process.logs / "edgeml.A.log"
        log.write_text(text_of(["one"]))
        eventually(lambda: not answers, what="both answers")
        with log.open("a") as file:
            file.write(text_of(["two"]))
        assert sink.wait_for(1) == ["two"]  # CloudWatch said that it has one
        assert "set retentionDays by hand" in process.said()
