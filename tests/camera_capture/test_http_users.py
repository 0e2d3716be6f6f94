"""Who may see what an HTTP camera sees: users by Digest, Basic and in URLs, and nobody on another host."""

import base64
import hashlib
import re
import socket
import threading
from collections.abc import Callable

import pytest

from camera_capture.http_address import Address
from camera_support import source_of
from edgeml.errors import SourceError
from hostile_http import OK, Behaviour, RawServer, raw_server, sends
from http_camera_support import PICTURES, camera, seen


def asking(server: RawServer, challenge: str, check: Callable[[str], bool]) -> Behaviour:
    def behave(sock: socket.socket, ended: threading.Event) -> None:
        found = re.search(rb"Authorization: ([^\r]+)", server.requests[-1])
        if found and check(found[1].decode()):
            sock.sendall(OK + b"Content-Type: image/jpeg\r\n\r\n" + PICTURES[0])
        else:
            sock.sendall(f"HTTP/1.1 401 No\r\nWWW-Authenticate: {challenge}\r\nContent-Length: 0\r\n\r\n".encode())

    return behave


def digest_is_right(header: str, *, password: str, kind: str = "md5", qop: bool = True) -> bool:
    fields = dict(re.findall(r'(\w+)="?([^",]*)"?', header.removeprefix("Digest ")))

    def digest(*parts: str) -> str:
        return hashlib.new(kind, ":".join(parts).encode()).hexdigest()

    first, second = digest("me", "cam", password), digest("GET", fields["uri"])
    middle = [fields["nc"], fields["cnonce"], "auth"] if qop else []
    return header.startswith("Digest ") and fields["response"] == digest(first, "n1", *middle, second)


@pytest.mark.parametrize(
    ("challenge", "options"),
    [
        ('Digest realm="cam", nonce="n1", qop="auth,auth-int", algorithm=MD5', {}),
        ('Digest realm="cam", nonce="n1"', {"qop": False}),
        ('Digest realm="cam", nonce="n1", opaque=, stale=, domain', {"qop": False}),
        ('Digest realm="cam", nonce="n1", qop="auth", algorithm=SHA-256', {"kind": "sha256"}),
    ],
    ids=["md5", "of old", "with fields that are empty", "sha256"],
)
def test_a_user_is_proved_by_digest(server: RawServer, challenge: str, options: dict[str, object]) -> None:
    server.behave = asking(server, challenge, lambda h: digest_is_right(h, password="p w", **options))  # type: ignore[arg-type]
    source = camera(server, "/v?a=b c", user="me:p%20w")
    assert seen(source, 2) == [20, 20]
    source.close()
    assert b"Authorization" not in server.requests[0]  # not even the user is told unasked
    assert server.requests[1].startswith(b"GET /v?a=b%20c HTTP/1.1\r\n")


def test_a_user_is_proved_by_basic_and_a_wrong_one_is_told(server: RawServer) -> None:
    server.behave = asking(server, 'Basic realm="x"', lambda header: header == "Basic bWU6cDpAdw==")
    source = camera(server, user="me:p:@w")
    assert seen(source, 2) == [20, 20]
    source.close()
    source = camera(server, user="me:wr0ng")
    with pytest.raises(SourceError, match=r"/v: HTTP 401 No \(user or password\)") as caught:
        source.grab()
    source.close()
    assert "wr0ng" not in str(caught.value)


def test_no_redirect_leads_a_user_to_another_host(server: RawServer) -> None:
    with raw_server(sends(OK + b"Content-Type: image/jpeg\r\n\r\n" + PICTURES[0])) as other:
        server.behave = sends(f"HTTP/1.1 302 Go\r\nLocation: {other.url}/x\r\nContent-Length: 0\r\n\r\n".encode())
        for path, user in (("/v", "me:s3cret"), ("/v?loginpas=s3cret", "")):
            source = camera(server, path, user=user)
            with pytest.raises(SourceError, match="redirects to another host") as caught:
                source.grab()
            source.close()
            assert "s3cret" not in str(caught.value)
        assert not other.requests
        source = camera(server)  # with nothing to lose
        assert seen(source, 1) == [20]
        source.close()


def test_ffmpeg_is_told_a_user_as_people_write_it(server: RawServer) -> None:
    """RTSP: OPTIONS, DESCRIBE, and DESCRIBE again with the user."""
    asked: list[bytes] = []

    def behave(sock: socket.socket, ended: threading.Event) -> None:
        request = server.requests[-1]
        while request:
            asked.append(request)
            found = re.search(rb"CSeq: (\d+)", request)
            status = b"200 OK" if request.startswith(b"OPTIONS") else b"401 No"
            head = b"RTSP/1.0 %b\r\nCSeq: %b\r\n" % (status, found[1] if found else b"0")
            sock.sendall(head + b'WWW-Authenticate: Basic realm="x"\r\nPublic: OPTIONS, DESCRIBE\r\n\r\n')
            request = sock.recv(65536)

    server.behave = behave
    place = server.url.removeprefix("http://")
    with pytest.raises(SourceError, match="cannot be opened as rtsp") as caught:
        source_of(type="rtsp", location=f"rtsp://me:p w/@#1%40@{place}/one", stall_timeout_s=2)
    assert "p w" not in str(caught.value)
    told = re.findall(rb"Authorization: Basic (\S+)", b"".join(asked))
    assert told
    assert {base64.b64decode(item) for item in told} == {b"me:p w/@#1@"}


@pytest.mark.parametrize(
    ("location", "url", "user", "password"),
    [
        ("http://h/v", "http://h/v", "", ""),
        ("HTTP://me@h:80", "http://h:80", "me", ""),
        ("https://me:p@w@h/v?x=a@b#f", "https://h/v?x=a@b", "me", "p@w"),
        ("http://me:p/w#1@h/v", "http://h/v", "me", "p/w#1"),
        ("http://me:p w@[::1]:8080/a b?c=d e&f=%20", "http://[::1]:8080/a%20b?c=d%20e&f=%20", "me", "p w"),
        ("http://me:p%40w@h/\u00e9", "http://h/%C3%A9", "me", "p@w"),
    ],
    ids=range(6),
)
def test_urls_are_understood_as_people_write_them(location: str, url: str, user: str, password: str) -> None:
    address = Address.of(location)
    assert (address.url, address.user, address.password) == (url, user, password)
    assert "p" not in repr(address).partition("(")[2].replace("http", "")


@pytest.mark.parametrize("location", ["h/v", "rtsp://h/v", "http://", "http://me:s3cret@/v", "http://a b/v", "0"])
def test_what_is_no_http_url_is_refused(location: str) -> None:
    with pytest.raises(SourceError, match="expected http://") as caught:
        source_of(type="http", location=location)
    assert "s3cret" not in str(caught.value)
