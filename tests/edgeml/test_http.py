"""Servers that trickle, flood, lie and send elsewhere, over real sockets."""

import socket
import ssl
import threading
import time
from pathlib import Path

import pytest

from certificates import certificate
from edgeml import http
from edgeml.errors import HttpError, HttpRedirectError, HttpTimeoutError, HttpUrlError
from edgeml.http import MAX_URL, Client, Limits
from hostile_http import ENDLESS, OK, WRONG, raw_server, sends

QUICK = Limits(total_s=0.4, connect_s=0.3, stall_s=0.3, max_bytes=20_000)
KEPT = OK + b"Content-Length: 2\r\n\r\nok"


@pytest.mark.parametrize("fault", ENDLESS)
def test_nothing_holds_a_request_beyond_its_deadline(fault: str) -> None:
    began = time.monotonic()
    with raw_server(ENDLESS[fault]) as server, pytest.raises(HttpError):
        http.request("GET", server.url, QUICK)
    assert time.monotonic() - began < 20  # these servers never end


@pytest.mark.parametrize("fault", [name for name in ENDLESS if "flood" in name])
def test_a_flood_ends_by_its_bytes_long_before_its_time(fault: str) -> None:
    with raw_server(ENDLESS[fault]) as server, pytest.raises(HttpError) as caught:
        http.request("GET", server.url, Limits(total_s=8, max_bytes=20_000))
    assert not isinstance(caught.value, HttpTimeoutError)


@pytest.mark.parametrize("fault", WRONG)
def test_an_answer_that_is_none_is_an_error_in_words(fault: str) -> None:
    with raw_server(WRONG[fault]) as server, pytest.raises(HttpError, match=r"^http://127\.0\.0\.1:\d+: .+"):
        http.request("GET", f"{server.url}?key=secret", QUICK)


def test_a_whole_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_server(
        sends(OK + b"X-A: b\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n")
    ) as server:
        answer = http.request("POST", f"{server.url}/p?q=1", QUICK, body=b"{}", headers={"x-key": "k"})
    assert (answer.status, answer.body, answer.headers["x-a"]) == (200, b"abcd", "b")
    assert server.requests[0].startswith(b"POST /p?q=1 HTTP/1.1\r\n")
    assert server.requests[0].count(b"Host: 127.0.0.1:") == 1
    assert b"x-key: k\r\n" in server.requests[0]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("size", "fits"), [(0, True), (1, True), (999, True), (1000, True), (1001, False)])
def test_a_body_has_no_more_bytes_than_are_allowed(size: int, fits: bool, chunked: bool) -> None:
    length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
    content = b"x" * size
    if chunked:
        content = (b"%x\r\n%b\r\n" % (size, content) if size else b"") + b"0\r\n\r\n"
    with raw_server(sends(OK + length + b"\r\n\r\n" + content)) as server:
        if fits:
            assert http.request("GET", server.url, Limits(5, max_bytes=1000)).body == b"x" * size
        else:
            with pytest.raises(HttpError, match="1000"):
                http.request("GET", server.url, Limits(5, max_bytes=1000))


@pytest.mark.parametrize("length", [9, MAX_URL - 1, MAX_URL])
def test_urls_up_to_a_length_can_be_asked(length: int) -> None:
    assert http.check_url("http://h/".ljust(length, "a")).hostname == "h"
    with pytest.raises(HttpUrlError, match=f"a URL of {MAX_URL + 1} characters"):
        http.check_url("http://h/".ljust(MAX_URL + 1, "a"))


def test_a_server_that_is_not_there() -> None:
    with raw_server(sends(b"")) as server:
        pass
    with pytest.raises(HttpError, match="refused"):
        http.request("GET", server.url, QUICK)
    with pytest.raises(HttpError, match="nowhere"):
        http.request("GET", "http://nowhere.invalid/", QUICK)


@pytest.mark.parametrize(
    "url",
    ["http://h/a b", "http://h/\n", "http://h/\x00", "http://h/é", "http://h\x7f/", "http://h:99999/", "http://h:x/",
     "http://[::1/", "http:///p", "ftp://h/", "h/p", "", "https://" + "a" * 99_999],
)  # fmt: skip
def test_a_url_that_can_never_work_is_told_apart(url: str) -> None:
    with pytest.raises(HttpUrlError):
        http.request("GET", url, QUICK)


def test_what_is_shown_of_a_url_has_no_secrets() -> None:
    assert http.shown("https://u:p@h:1/a?loginpas=x#y") == "https://h:1/a"
    assert http.shown("http://h/\n\x1b[1m") == "http://h/..[1m"


def moved(target: str, status: int = 302) -> bytes:
    return b"HTTP/1.1 %d Moved\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n" % (status, target.encode())


def test_redirects_stay_on_their_host() -> None:
    with raw_server(sends(KEPT)) as other, raw_server(sends(b"")) as server:
        key = {"x-api-key": "secret"}
        server.behave = sends(moved(f"{other.url}/x"))
        with pytest.raises(HttpRedirectError, match="no redirect is followed"):
            http.request("GET", server.url, QUICK, headers=key)
        with pytest.raises(HttpRedirectError, match="another host"):
            http.request("GET", server.url, QUICK, headers=key, redirects=3)
        assert other.requests == []
        assert http.request("GET", server.url, QUICK, redirects=None).status == 302
        options = {"headers": {**key, "Range": "bytes=1-"}, "redirects": 3, "cross_host": True}
        assert http.request("GET", server.url, QUICK, **options).body == b"ok"
        assert b"x-api-key" not in other.requests[0].lower()
        assert b"Range: bytes=1-" in other.requests[0]
        server.behave = sends(moved("/next"))  # for ever
        with pytest.raises(HttpRedirectError):
            http.request("GET", server.url, QUICK, redirects=3)
        for target in ("ftp://h/", "http://h/a b", "//"):
            server.behave = sends(moved(target))
            with pytest.raises(HttpError):
                http.request("GET", server.url, QUICK, redirects=3, cross_host=True)
        server.behave = sends(moved("/next"))
        with pytest.raises(HttpRedirectError):
            http.request("POST", server.url, QUICK, redirects=3, body=b"x")


@pytest.mark.parametrize(
    "place",
    [b"http://[::1", b"//[", b"http://[v1.]/", b"//\xe2\x84\x80/", b"http://a]b/", b"http://h:99999/", b"http://@/"],
)
def test_a_redirect_to_what_is_no_url_is_an_error_in_words(place: bytes) -> None:
    answer = sends(b"HTTP/1.1 302 Found\r\nLocation: " + place + b"\r\n\r\n")
    with raw_server(answer) as server, pytest.raises(HttpError, match=r"^http://\S*: .+"):
        http.request("GET", server.url, QUICK, redirects=3, cross_host=True)


def test_what_a_server_says_is_one_line_of_an_error() -> None:
    with raw_server(sends(b"HTTP/1.1 1 \x1b[2J\r\n\r\n")) as server, pytest.raises(HttpError) as caught:
        http.request("GET", server.url, QUICK)
    assert str(caught.value).isprintable()


def test_no_redirect_leads_to_something_weaker(tmp_path: Path) -> None:
    pem = certificate(tmp_path)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(pem)
    client = Client(context=ssl.create_default_context(cafile=str(pem)))
    with raw_server(sends(KEPT)) as plain, raw_server(sends(KEPT), server_side) as safe:
        plain.behave = sends(moved(safe.url))
        assert client.request("GET", plain.url, QUICK, headers={"x-api-key": "k"}, redirects=1).body == b"ok"
        assert b"x-api-key: k" in safe.requests[0]
        asked = len(plain.requests)
        safe.behave = sends(moved(plain.url))
        with pytest.raises(HttpRedirectError, match="not encrypted"):
            client.request("GET", safe.url, QUICK, redirects=1, cross_host=True)
        assert len(plain.requests) == asked
    client.close()


def test_one_connection_serves_many_questions_and_a_closed_one_is_replaced() -> None:
    keep = {"Connection": "keep-alive"}
    client = Client(idle=1)
    with raw_server(sends(KEPT)) as server:
        for _ in range(3):
            assert client.request("GET", server.url, QUICK, headers=keep).body == b"ok"
        assert server.connections == 1
        client.request("GET", server.url, QUICK)  # the server closes after this one
        assert client.request("GET", server.url, QUICK, headers=keep).body == b"ok"
        assert server.connections == 2
        client.close()


def test_a_kept_connection_that_dies_unseen_costs_nothing_but_a_posted_order_is_not_repeated() -> None:
    gone: list[bool] = []

    def once(sock: object, ended: threading.Event) -> None:
        if gone and gone.pop():
            raise OSError  # closes without an answer
        sends(KEPT)(sock, ended)  # type: ignore[arg-type]

    client, keep = Client(idle=1), {"Connection": "keep-alive"}
    with raw_server(once) as server:
        client.request("GET", server.url, QUICK, headers=keep)
        gone.append(True)
        assert client.request("GET", server.url, QUICK, headers=keep).body == b"ok"
        assert len(server.requests) == 3
        gone.append(True)
        with pytest.raises(HttpError):
            client.request("POST", server.url, QUICK, headers=keep, body=b"pay")
        assert len(server.requests) == 4
        client.close()


@pytest.mark.parametrize("key", ["secret\n", "secret\r\nx: y", "s\0", "sécret", "secret€"])
def test_a_header_that_cannot_be_sent_is_not_shown(key: str) -> None:
    with raw_server(sends(KEPT)) as server, pytest.raises(HttpError, match="header x-api-key") as caught:
        http.request("GET", server.url, QUICK, headers={"x-api-key": key})
    assert "cret" not in str(caught.value)


def test_a_body_is_read_piece_by_piece_within_its_limit() -> None:
    with raw_server(sends(OK + b"\r\n" + b"x" * 30_000)) as server:
        with http.opened("GET", server.url, QUICK) as stream, pytest.raises(HttpError, match="more than 20000 bytes"):
            while stream.read1(1000):
                pass
        with http.opened("GET", server.url, Limits(5, max_bytes=30_000)) as stream:
            assert len(stream.read()) == 30_000


def test_a_proxy_of_the_environment_is_asked_and_may_not_hold_us_either(monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_server(sends(KEPT)) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url.replace("//", "//u:p%40@"))
        monkeypatch.setenv("https_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert http.request("GET", "http://device.invalid/a?b=1", QUICK).body == b"ok"
        assert proxy.requests[0].startswith(b"GET http://device.invalid/a?b=1 HTTP/1.1\r\n")
        assert b"Proxy-Authorization: Basic dTpwQA==" in proxy.requests[0]
        proxy.behave = ENDLESS["headers trickle"]
        with pytest.raises(HttpTimeoutError):
            http.request("GET", "https://device.invalid/", QUICK)
        assert proxy.requests[1].startswith(b"CONNECT device.invalid:443 HTTP/1.")
        with pytest.raises(HttpError, match="nvalid"):
            Client(proxies=False).request("GET", "http://device.invalid/", QUICK)


def test_an_address_that_leads_nowhere_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    with raw_server(sends(KEPT)) as server, socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        kind = (socket.AF_INET, socket.SOCK_STREAM, 0, "")
        waiting = [socket.socket() for _ in range(3)]  # who fills its queue: nobody accepts
        for sock in waiting:
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        good = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        places = [(*kind, full.getsockname()), (*kind, good)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **options: places)
        assert http.request("GET", "http://two.invalid/", Limits(4, connect_s=1)).body == b"ok"
        for sock in waiting:
            sock.close()


def test_tls_is_checked(tmp_path: Path) -> None:
    pem = certificate(tmp_path)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(pem)
    with raw_server(sends(KEPT), server_side) as server:
        url = server.url
        trusting = Client(context=ssl.create_default_context(cafile=str(pem)))
        assert trusting.request("GET", url, Limits(5)).body == b"ok"
        with pytest.raises(HttpError, match="CERTIFICATE_VERIFY_FAILED"):
            http.request("GET", url, Limits(5))
