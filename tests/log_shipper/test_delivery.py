"""The real process against a CloudWatch Logs that enforces every limit and fails on demand."""

import contextlib
import json
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.log_rig import Fault, FaultySink, Request, Shipper, shipper
from support import eventually

DAY = datetime.now(UTC).replace(hour=10, minute=0, second=0, microsecond=0) - timedelta(days=3)  # CloudWatch takes it
PREFIX = f"{DAY:%Y-%m-%d}T10:00:00.000Z [INFO] (Copier) edgeml.A: stdout. "
GROUP = "/aws/greengrass/UserComponent/eu-west-1/edgeml.A"


def lines(count: int, start: int = 0) -> list[str]:
    return [f"{PREFIX}line {number}" for number in range(start, start + count)]


def text_of(items: list[str]) -> str:
    return "".join(f"{item}\n" for item in items)


def test_lines_arrive_in_logmanagers_group_and_stream_with_the_time_of_the_line(
    tmp_path: Path, sink: FaultySink
) -> None:
    with shipper(tmp_path, {"retentionDays": 30}, AWS_ENDPOINT_URL=sink.url) as process:
        (process.logs / "edgeml.A.log").write_text(text_of(lines(100)))
        assert sink.wait_for(100) == lines(100)
    event = sink.events[0]
    assert (event.group, event.stream) == (GROUP, f"/{DAY:%Y/%m/%d}/thing/thing-1")
    assert event.timestamp == int(DAY.timestamp() * 1000)
    assert sink.retention == {GROUP: 30}


def test_requests_are_signed_for_the_service_with_the_environments_credentials(
    tmp_path: Path, sink: FaultySink
) -> None:
    with shipper(tmp_path, {}, AWS_ENDPOINT_URL="http://127.0.0.1:9", AWS_ENDPOINT_URL_CLOUDWATCH_LOGS=sink.url) as it:
        (it.logs / "edgeml.A.log").write_text(text_of(lines(1)))
        sink.wait_for(1)
    authorization = sink.requests[-1].headers["authorization"]
    assert authorization.startswith("AWS4-HMAC-SHA256 Credential=testing/")
    assert "/eu-west-1/logs/aws4_request" in authorization


def test_batches_keep_every_limit_for_long_short_old_and_unordered_lines(tmp_path: Path, sink: FaultySink) -> None:
    now = datetime.now(UTC)
    days = [(now - timedelta(hours=7 * step)).isoformat(timespec="milliseconds") for step in range(10)]
    written = [
        *[f"{PREFIX}{'x' * 30_000} {number}" for number in range(120)],
        *[f"{PREFIX}{number}" for number in range(25_000)],
        *[f"{days[number % 10].replace('+00:00', 'Z')} [INFO] (main) a: line {number}" for number in range(500)],
        *[f"{DAY:%Y-%m-%d}T09:{59 - number:02}:00Z [INFO] (main) a: backwards {number}" for number in range(60)],
    ]
    with shipper(tmp_path, {}, AWS_ENDPOINT_URL=sink.url) as process:
        (process.logs / "edgeml.A.log").write_text(text_of(written))
        sink.wait_for(len(written), timeout=25)
    assert sorted(sink.messages()) == sorted(written)
    assert all("ResourceNotFound" in refusal for refusal in sink.refused)


def test_a_line_above_the_limit_of_an_event_is_split_and_nothing_of_it_is_lost(
    tmp_path: Path, sink: FaultySink
) -> None:
    monster = PREFIX + "é" * 1_700_000
    with shipper(tmp_path, {}, AWS_ENDPOINT_URL=sink.url) as process:
        (process.logs / "edgeml.A.log").write_text(text_of([*lines(3), monster, *lines(3, 3)]))
        found = sink.wait_for(10)
    assert found[:3] + found[-3:] == lines(6)
    assert "".join(found[3:-3]) == monster
    assert len({event.timestamp for event in sink.events}) == 1


def test_invalid_utf8_is_replaced_nuls_and_empty_lines_left_out(tmp_path: Path, sink: FaultySink) -> None:
    with shipper(tmp_path, {}, AWS_ENDPOINT_URL=sink.url) as process:
        data = (
            PREFIX.encode()
            + b"a\xff\xc3b\n\n\r\n"
            + b"\0" * 5000
            + b"\n"
            + PREFIX.encode()
            + b"c\0d\r\n"
            + b"\xfe" * 600_000
        )
        (process.logs / "edgeml.A.log").write_bytes(data + b"\n" + PREFIX.encode() + b"end\n")
        found = sink.wait_for(5)
    # Parts of a line without a time have that of their reading, and may stand before or after the last line.
    found.remove(f"{PREFIX}end")
    assert found[0] == f"{PREFIX}a��b"
    assert "".join(found[1:]).replace("\n", "") == f"{PREFIX}cd" + "�" * 600_000


def test_throttling_server_errors_and_lost_connections_delay_and_neither_lose_nor_reorder(
    tmp_path: Path, sink: FaultySink
) -> None:
    faults = iter(
        [Fault(429, "ThrottlingException"), Fault(500, "InternalFailure"), Fault(503), Fault(0), Fault(400, "Odd")] * 2
    )
    sink.fault = lambda request: next(faults, None) if request.operation == "PutLogEvents" else None
    with shipper(tmp_path, {}, AWS_ENDPOINT_URL=sink.url) as process:
        (process.logs / "edgeml.A.log").write_text(text_of(lines(50)))
        assert sink.wait_for(50, timeout=40) == lines(50)
        with (process.logs / "edgeml.A.log").open("a") as file:
            file.write(text_of(lines(5, 50)))
        sink.wait_for(55)
        assert "ThrottlingException" in process.said()
        assert "delivering again" in process.said()
    assert sink.messages() == lines(55)


def test_a_lost_answer_repeats_one_batch_and_no_more(tmp_path: Path, sink: FaultySink) -> None:
    lost = iter([None, Fault(0, stored=True)])
    sink.fault = lambda request: next(lost, None) if request.operation == "PutLogEvents" else None
    with shipper(tmp_path, {}, AWS_ENDPOINT_URL=sink.url) as process:
        (process.logs / "edgeml.A.log").write_text(text_of(lines(20)))
        eventually(lambda: set(sink.messages()) == set(lines(20)), what="all lines")
        eventually(lambda: "delivering again" in process.said(), what="recovery")
    assert max(sink.counted().values()) == 2


def test_a_stream_that_fails_or_hangs_blocks_no_other(tmp_path: Path, sink: FaultySink) -> None:
    enough = threading.Event()

    def fault(request: Request) -> Fault | None:
        if request.group.endswith("Hangs"):
            enough.wait(30)
            return Fault(0)
        return Fault(400, "AccessDeniedException", "not allowed") if request.group.endswith("Bad") else None

    sink.fault = fault
    with shipper(tmp_path, {}, AWS_ENDPOINT_URL=sink.url) as process:
        for name in ("Hangs", "Bad", "A", "Z"):
            (process.logs / f"edgeml.{name}.log").write_text(text_of(lines(10)))
        sink.wait_for(10, "edgeml.A")
        sink.wait_for(10, "edgeml.Z")
        eventually(lambda: "logs:PutLogEvents" in process.said(), what="what is missing")
        assert "token exchange role must allow logs:PutLogEvents on" in process.said()
        sink.fault = lambda request: None
        enough.set()
        sink.wait_for(10, "edgeml.Bad")


def test_an_event_that_is_refused_is_dropped_alone_once_others_have_been_accepted(
    tmp_path: Path, sink: FaultySink
) -> None:
    def fault(request: Request) -> Fault | None:
        poison = any("line 77" in event["message"] for event in request.body.get("logEvents", []))
        return Fault(400, "InvalidParameterException") if poison else None

    sink.fault = fault
    with shipper(tmp_path, {}, AWS_ENDPOINT_URL=sink.url) as process:
        (process.logs / "edgeml.A.log").write_text(text_of(lines(200)))
        assert sink.wait_for(199) == [line for line in lines(200) if not line.endswith("line 77")]
        assert "event dropped" in process.said()


def test_expired_credentials_are_fetched_anew_from_the_container_endpoint(tmp_path: Path, sink: FaultySink) -> None:
    keys = iter(range(1, 1000))
    valid = ["KEY1"]

    def fault(request: Request) -> Fault | None:
        key = request.headers["authorization"].partition("Credential=")[2].partition("/")[0]
        return None if key == valid[0] else Fault(400, "ExpiredTokenException", "The security token is expired")

    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert self.headers["Authorization"] == "secret"
            expiry = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
            fields = {"AccessKeyId": f"KEY{next(keys)}", "SecretAccessKey": "s", "Token": "t", "Expiration": expiry}
            data = json.dumps(fields).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    sink.fault = fault
    environment = {
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{server.server_port}/2016-11-01/credentialprovider/",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "secret",
        "AWS_ACCESS_KEY_ID": "",
        "AWS_ENDPOINT_URL": sink.url,
    }
    try:
        made = shipper(tmp_path, {}, **environment)
        with made as process:
            log = process.logs / "edgeml.A.log"
            log.write_text(text_of(lines(10)))
            sink.wait_for(10)
            valid[0] = "KEY2"
            with log.open("a") as file:
                file.write(text_of(lines(10, 10)))
            assert sink.wait_for(20) == lines(20)
            assert "ExpiredTokenException" in process.said()
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def holds(process: Shipper, path: Path) -> bool:
    """Whether the process has the file open."""
    assert process.process is not None
    for descriptor in Path(f"/proc/{process.process.pid}/fd").iterdir():
        with contextlib.suppress(OSError):  # just closed
            if descriptor.samefile(path):
                return True
    return False


def test_without_network_lines_wait_and_arrive_when_it_is_back(tmp_path: Path, sink: FaultySink) -> None:
    sink.fault = lambda request: Fault(0)
    with shipper(tmp_path, {}, AWS_ENDPOINT_URL=sink.url) as process:
        log = process.logs / "edgeml.A.log"
        log.write_text("")
        eventually(lambda: "log found" in process.said(), what="the log to be found")
        for hour in range(4):  # rotated and deleted meanwhile, as the nucleus does at its size limit
            log.write_text(text_of(lines(1000, hour * 1000)))
            eventually(lambda: holds(process, log), what="the file to be held open")
            log.rename(log.with_name(f"edgeml.A_2026_11_21_0{hour}_0.log"))
        for rotated in process.logs.glob("*_0.log"):
            rotated.unlink()
        log.write_text(text_of(lines(1000, 4000)))
        sink.fault = lambda request: None
        sink.wait_for(5000)
    assert sorted(sink.messages()) == sorted(lines(5000))


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
