"""Why an RTSP camera cannot be opened: in a word or two, whatever is at its address."""

import hashlib
import re
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from camera_capture.rtsp_trouble import trouble
from camera_support import source_of
from edgeml.errors import SourceError
from hostile_http import RawServer, raw_server, sends


@pytest.fixture
def server() -> Iterator[RawServer]:
    with raw_server(sends(b"")) as made:
        yield made


def url(server: RawServer, user: str = "") -> str:
    return server.url.replace("http://", f"rtsp://{user}@" if user else "rtsp://") + "/stream1"


def answer(status: str, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"RTSP/1.0 {status}", "CSeq: 1", *headers, f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


DIGEST = 'WWW-Authenticate: Digest realm="cam", nonce="n1"'
ANSWERS = {
    "no user": (answer("401 Unauthorized", DIGEST), "unauthorized (user or password)"),
    "forbidden": (answer("403 Forbidden"), "unauthorized (user or password)"),
    "no such path": (answer("404 Not Found"), "not found; is the path right?"),
    "no such stream": (answer("454 Session Not Found"), "not found; is the path right?"),
    "busy": (answer("453 Not Enough Bandwidth"), "it says 453 Not Enough Bandwidth"),
    "sound alone": (answer("200 OK", body=b"v=0\r\nm=audio 0 RTP/AVP 0\r\n"), "it has no video"),
    "a camera": (answer("200 OK", body=b"v=0\r\nm=video 0 RTP/AVP 96\r\n"), ""),
    "a web server": (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "it does not speak RTSP"),
    "bytes": (bytes(range(256)) * 10, "it does not speak RTSP"),
    "nothing": (b"", "it does not speak RTSP"),
    "no number": (b"RTSP/1.0 abc\r\n\r\n", "it does not speak RTSP"),
    "a length that lies": (b"RTSP/1.0 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nm=video", ""),
    "control characters": (b"RTSP/1.0 500 a\x1b[31mb\x00\r\n\r\n", "it says 500 a[31mb"),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_what_a_server_says_is_told(server: RawServer, what: str) -> None:
    data, words = ANSWERS[what]
    server.behave = sends(data)
    assert trouble(url(server), 5) == words


def test_a_right_password_is_no_trouble_and_a_wrong_one_is(server: RawServer) -> None:
    def digest(*parts: str) -> str:
        return hashlib.md5(":".join(parts).encode(), usedforsecurity=False).hexdigest()

    def behave(sock: socket.socket, ended: threading.Event) -> None:
        """As cameras do it: one connection for both requests."""
        request = server.requests[-1].decode()
        for _ in range(2):
            fields = dict(re.findall(r'(\w+)="([^"]*)"', request))
            second = digest("DESCRIBE", fields.get("uri", ""))
            if fields.get("response") == digest(digest("me", "cam", "right"), "n1", second):
                assert fields["uri"] == url(server)
                sock.sendall(answer("200 OK", body=b"m=video"))
                return
            sock.sendall(answer("401 Unauthorized", DIGEST))
            request = sock.recv(65536).decode()

    server.behave = behave
    assert trouble(url(server, "me:right"), 5) == ""
    assert trouble(url(server, "me:wrong"), 5) == "unauthorized (user or password)"
    assert b"right" not in b"".join(server.requests)


def test_nobody_at_the_address() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        assert trouble(f"rtsp://127.0.0.1:{port}/s", 5) == "connection refused; is it the right port?"
    assert trouble("rtsp://no-such-host.invalid/s", 5) == "no host of that name"
    assert trouble("rtsp://127.0.0.1:99999/s", 5) == "expected rtsp://<host>"
    assert trouble("rtsp:///s", 5) == "expected rtsp://<host>"
    assert trouble("udp://192.0.2.7:5000", 5) == ""


def test_who_hangs_up_on_a_wrong_user_is_understood(server: RawServer) -> None:
    server.behave = sends(answer("401 Unauthorized", DIGEST))
    assert trouble(url(server, "me:wrong"), 5) == "unauthorized (user or password)"


def test_a_name_that_is_not_resolved_in_time_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda *arguments, **options: released.wait(20) and [(("192.0.2.7", 554),)]
    )
    try:
        assert trouble("rtsp://camera.lan/s", 0.1) == "its name is not resolved in time"
    finally:
        released.set()


def test_whoever_is_slow_or_never_ends_is_left(server: RawServer) -> None:
    def dribble(sock: socket.socket, ended: threading.Event) -> None:
        while not ended.wait(0.02):
            sock.sendall(b"a")

    def flood(sock: socket.socket, ended: threading.Event) -> None:
        while not ended.is_set():
            sock.sendall(b"RTSP/1.0 200 OK\r\nx: " + b"y" * 65536)

    began = time.monotonic()
    server.behave = dribble
    assert trouble(url(server), 0.3) == "timed out: nobody answers"
    server.behave = flood
    assert trouble(url(server), 5) in ("it has no video", "it does not speak RTSP")
    assert time.monotonic() - began < 10


def test_a_camera_that_cannot_be_opened_says_why(server: RawServer) -> None:
    server.behave = sends(answer("404 Not Found"))
    with pytest.raises(SourceError, match=r"cannot be opened as rtsp: not found; is the path right\?") as caught:
        source_of(type="rtsp", location=url(server, "me:s3cret"), stall_timeout_s=2)
    assert "s3cret" not in str(caught.value)
