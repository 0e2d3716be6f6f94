"""The real process against a CloudWatch Logs that enforces every limit and fails on demand."""

import contextlib
import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.log_rig import Shipper, shipper
from faulty_logs import Fault, FaultySink, Request
from shipped_support import DAY, GROUP, PREFIX, lines, text_of
from support import eventually


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
