"""Answers of S3 and outages, bucket by bucket; object names that carry a time."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from clock_support import FakeClock
from edgeml.component import Context
from edgeml.errors import CloudError, RefusedError
from edgeml.health import Health
from edgeml.ipc import StandaloneIpc
from edgeml.s3 import Client, Uploader, literal
from edgeml.spool import Spool
from support import eventually

BODY = "<?xml version='1.0'?><Error><Code>{code}</Code><Message>said so</Message></Error>"


class Bucket:
    """S3 by status and code: `<status>-<code>.lower()` is a bucket that answers so, any other takes all."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.taken: list[tuple[str, bytes, str]] = []


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    bucket = Bucket()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_PUT(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            status, body = bucket.answers.get(self.path.split("/")[1], (200, b""))
            if status == 200:
                bucket.taken.append((self.path, data, self.headers.get("x-amz-meta-clock", "")))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if body.startswith(b"<html>"):
                self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{server.server_port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    yield bucket
    server.shutdown()
    server.server_close()
    thread.join()


def context(folder: Path) -> Context:
    ipc = StandaloneIpc.__new__(StandaloneIpc)
    return Context(ipc=ipc, health=Health("test", "1"), work=folder, root=folder, thing_name="thing")


REFUSED = [
    (301, "PermanentRedirect"),
    (400, "KeyTooLongError"),
    (400, "InvalidBucketName"),
    (400, "IllegalLocationConstraintException"),
    (400, "AuthorizationHeaderMalformed"),
    (403, "AccessDenied"),
    (403, "AllAccessDisabled"),
    (404, "NoSuchBucket"),
    (405, "MethodNotAllowed"),
    (411, "MissingContentLength"),
    (413, "EntityTooLarge"),
    (403, ""),
]
OUTAGES = [
    (307, "TemporaryRedirect"),
    (400, "RequestTimeout"),
    (400, "ExpiredToken"),
    (400, "InvalidToken"),
    (400, "BadDigest"),
    (403, "InvalidAccessKeyId"),
    (403, "RequestTimeTooSkewed"),
    (403, "SignatureDoesNotMatch"),
    (407, "ProxyAuthenticationRequired"),
    (408, "RequestTimeout"),
    (409, "OperationAborted"),
    (429, "TooManyRequests"),
    (500, "InternalError"),
    (503, "SlowDown"),
    (503, ""),
    (200, "not XML"),
]


@pytest.mark.parametrize(("status", "code"), [*REFUSED, *OUTAGES[:-1]])
def test_answers_are_told_apart_from_outages(s3: Bucket, status: int, code: str) -> None:
    s3.answers["bucket"] = (status, BODY.format(code=code).encode() if code else b"<html>busy</html>")
    with pytest.raises(RefusedError if (status, code) in REFUSED else CloudError, match="s3://bucket/key"):
        Client().call("put_object", "s3://bucket/key", Bucket="bucket", Key="key", Body=b"x")


def test_a_page_of_a_portal_is_no_success(s3: Bucket) -> None:
    s3.answers["bucket"] = (200, b"<html>log in</html>")
    with pytest.raises(CloudError, match="in place of S3's answer"):
        Client().call("put_object", "s3://bucket/key", Bucket="bucket", Key="key", Body=b"x")


@pytest.mark.parametrize("key", ["", "\ud800"], ids=ascii)
def test_what_the_sdk_itself_refuses_is_refused(s3: Bucket, key: str) -> None:
    with pytest.raises(RefusedError):
        Client().call("put_object", "s3://bucket/", Bucket="bucket", Key=key, Body=b"x")


def test_nobody_there_and_no_region_are_outages(s3: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9"), ("AWS_ENDPOINT_URL_S3", "no address")):
        monkeypatch.setenv(name, value)
        with pytest.raises(CloudError):
            Client().call("put_object", "s3://bucket/key", Bucket="bucket", Key="key", Body=b"x")


def test_a_bucket_that_refuses_keeps_no_other_waiting(s3: Bucket, tmp_path: Path) -> None:
    s3.answers["denied"] = (403, BODY.format(code="AccessDenied").encode())
    s3.answers["down"] = (503, b"")
    here = context(tmp_path)
    uploader = Uploader(here, max_bytes=1 << 20)
    for number in range(3):
        for bucket in ("denied", "down", "good"):
            uploader.put(bucket, f"{number}.jpg", b"%d" % number, "image/jpeg")
    eventually(lambda: len(s3.taken) == 3, what="the good bucket")
    eventually(lambda: here.health.report().gauges["s3.quarantined"] == 3, what="the refused ones")
    assert here.health.report().gauges["s3.waiting"] == 3
    codes = {(problem.code, problem.subject) for problem in here.health.problems.current()}
    assert {("refused", "s3.denied"), ("quarantined", "s3")} <= codes
    s3.answers.clear()  # somebody corrects the bucket's policy, and then the configuration
    uploader.configure(max_bytes=1 << 20)
    eventually(lambda: len(s3.taken) == 9, what="all")
    uploader.close()
    assert [path for path, _, _ in s3.taken if path.startswith("/down")] == [f"/down/{n}.jpg" for n in range(3)]
    assert sorted(path for path, _, _ in s3.taken if path.startswith("/denied")) == [
        f"/denied/{n}.jpg" for n in range(3)
    ]
    assert here.health.problems.current() == ()


@pytest.mark.parametrize("synchronises", [True, False])
def test_a_name_that_carries_a_time_waits_for_the_right_one(
    s3: Bucket, tmp_path: Path, synchronises: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeml.s3.LOOK_AGAIN_S", 0.02)
    clock = FakeClock(1000.0, uptime=10.0)
    uploader = Uploader(context(tmp_path), max_bytes=1 << 20, clock=clock)
    uploader.put("b", literal("a%Y") + "/%Y/%m/%d/%H%M%S%f-1.jpg", b"x", "image/jpeg", at=999.5)
    uploader.put("c", "%Y", b"y", "image/jpeg")
    eventually(lambda: [path for path, _, _ in s3.taken] == ["/c/%25Y"], what="the one that carries none")
    clock.pass_s(60)
    if synchronises:
        clock.synchronise(1_800_000_060.0)
    else:
        clock.pass_s(600)
    eventually(lambda: len(s3.taken) == 2)
    uploader.close()
    assert s3.taken[1] == (
        ("/b/a%25Y/2027/01/15/075959500000-1.jpg", b"x", "")
        if synchronises
        else ("/b/a%25Y/1970/01/01/001639500000-1.jpg", b"x", "unsynchronised")
    )


def test_with_a_clock_that_is_right_names_are_made_at_once(tmp_path: Path, s3: Bucket) -> None:
    here = context(tmp_path)
    s3.answers["b"] = (503, b"")
    uploader = Uploader(here, max_bytes=1 << 20, clock=FakeClock(1_800_000_000.0, synchronised=True))
    uploader.put("b", "%Y/x.jpg", b"x", "image/jpeg", at=1_800_000_000.0)
    uploader.close()
    spool = Spool(tmp_path / "s3.spool", max_bytes=1 << 20)
    assert [(item.topic, item.headers) for item in spool.peek(9)] == [("b/2027/x.jpg", {"content_type": "image/jpeg"})]
    spool.close()
