"""What no client says: requests and messages of any shape end their own connection, or are answered, and no more."""

import json
import re
import socket
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from live_support import opened, socket_to
from support import Standalone

PATHS = (
    "/", "/healthz", "/metrics", "/api/state", "/api/events", "/ws", "/sign-in", "/sign-out", "/static/app.js",
    "/static/..%2f..%2faccess.py", "/camera/door.jpg", "/camera/..%2f..%2fetc%2fpasswd.jpg", "/camera/%00.mjpeg",
    "/result/p.jpg?at=1", "/result/%2e%2e%2f.jpg?at=nan", "//evil.example/", "http://evil.example/", "*",
)  # fmt: skip
NAMES = ("Host", "Origin", "Cookie", "Authorization", "Content-Length", "Transfer-Encoding", "Upgrade", "Connection",
         "Sec-WebSocket-Key", "Sec-Fetch-Site", "Expect", "X")  # fmt: skip
VALUES = ("localhost", "127.0.0.1:1", "evil.example", "http://localhost", "edgeml-monitor=x", "Basic Og==", "chunked",
          "websocket", "Upgrade", "100-continue", "cross-site", "0", "5", "-1", "99999999999999999999", "")  # fmt: skip

anything = st.binary(max_size=40).map(lambda data: data.replace(b"\r", b"").replace(b"\n", b""))
header = st.tuples(st.sampled_from(NAMES).map(str.encode), st.sampled_from(VALUES).map(str.encode) | anything)
method = st.sampled_from(("GET", "POST", "HEAD", "PUT", "OPTIONS", "CONNECT", "TRACE")).map(str.encode) | anything
target = st.sampled_from(PATHS).map(str.encode) | anything
body = st.sampled_from((b"", b"password=x", b"password=%ff", b"0\r\n\r\n", b"zz\r\n")) | st.binary(max_size=40)
FEW = settings(
    max_examples=120, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def asked(base: str, request: bytes) -> bytes:
    """The beginning of the answer; nothing where the connection just ends."""
    with socket_to(base) as peer:
        try:
            peer.sendall(request)
            peer.shutdown(socket.SHUT_WR)
            return peer.recv(4096)
        except ConnectionError:
            return b""


@FEW
@given(method, target, st.booleans(), st.lists(header, max_size=6), body)
def test_any_request_is_answered_or_ended_and_the_next_is_served(
    running: Standalone, base: str, method: bytes, target: bytes, named: bool, headers: list[Any], body: bytes
) -> None:
    lines = [b"%s %s HTTP/1.1" % (method, target), *([b"Host: localhost"] if named else [])]
    lines += [b"%s: %s" % pair for pair in headers]
    answer = asked(base, b"\r\n".join([*lines, b"", body]))
    assert re.match(rb"HTTP/1\.1 ([1234]\d\d|503) |$", answer), answer[:200]
    assert asked(base, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    assert "Traceback" not in running.log


word = st.sampled_from(("watch", "follow", "records", "shown", "command", "camera", "max_width", "door", "start", "x"))
tree = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | word | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(word, inner, max_size=4),
    max_leaves=12,
)


@settings(FEW, max_examples=40)
@given(st.dictionaries(word, tree, max_size=4).map(json.dumps) | st.text(max_size=40) | st.binary(max_size=40))
def test_any_message_of_a_page_ends_that_page_or_does_no_harm(
    running: Standalone, base: str, message: str | bytes
) -> None:
    with opened(base) as page:
        page.send(message)
        try:
            assert json.loads(page.recv(10))["type"] == "state"
            page.send('{"records": true}')
        except ConnectionClosed as end:
            assert end.rcvd is None or end.rcvd.code == 1008
    assert "Traceback" not in running.log
