"""Cameras that speak HTTP, as they really do: streams with odd boundaries, snapshots, users, redirects, silence."""

import base64
import hashlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from camera_capture.http_address import Address
from camera_capture.kinds.http import HttpPictures
from camera_capture.multipart import MAX_LINE, Multipart
from camera_capture.source import UndecodableError
from camera_support import source_of
from edgeml.errors import SourceError
from hostile_http import ENDLESS, OK, Behaviour, RawServer, endless, raw_server, sends
from support import Standalone


def jpeg(value: int, width: int = 32, height: int = 16) -> bytes:
    return cv2.imencode(".jpg", np.full((height, width, 3), value, np.uint8))[1].tobytes()


PICTURES = [jpeg(value) for value in (20, 60, 100, 140, 180)]
VALUES = [20, 60, 100, 140, 180]


def body(
    pieces: list[bytes], *, first: bytes = b"--x\r\n", between: bytes = b"\r\n--x\r\n", length: bool = True
) -> bytes:
    made = first
    for number, piece in enumerate(pieces):
        made += b"Content-Type: image/jpeg\r\n" + (b"Content-Length: %d\r\n" % len(piece) if length else b"")
        made += b"\r\n" + piece + (between if number < len(pieces) - 1 else b"\r\n--x--\r\n")
    return made


STREAMS = {
    "as it should be": ("x", body(PICTURES)),
    "no length": ("x", body(PICTURES, length=False)),
    "no boundary before the first part (ESP32-CAM)": ("x", body(PICTURES, first=b"")),
    "neither": ("x", body(PICTURES, first=b"", length=False)),
    "dashes are part of the boundary": ("--x", body(PICTURES)),
    "dashes are missing": ("--x", body(PICTURES, first=b"x\r\n", between=b"\r\nx\r\n")),
    "quoted": ('"x"', body(PICTURES)),
    "another boundary than said": ("y", body(PICTURES)),
    "none said": ("", body(PICTURES)),
    "none said, no length": ("", body(PICTURES, length=False)),
    "newlines without returns": ("x", body(PICTURES).replace(b"\r\n", b"\n")),
    "blank lines between": ("x", body(PICTURES, between=b"\r\n\r\n\r\n--x\r\n")),
    "no blank line before the boundary": ("x", body(PICTURES, between=b"--x\r\n")),
    "no headers of parts": ("x", b"--x\r\n" + b"\r\n--x\r\n".join(PICTURES) + b"\r\n--x--\r\n"),
    "a blank line and no headers": ("x", b"--x\r\n\r\n" + b"\r\n--x\r\n\r\n".join(PICTURES) + b"\r\n"),
    "nothing but pictures": ("", b"".join(picture + b"\r\n" for picture in PICTURES)),
    "sound in between": (
        "x",
        body(PICTURES, between=b"\r\n--x\r\nContent-Type: audio/basic\r\nContent-Length: 3\r\n\r\nabc\r\n--x\r\n"),
    ),
    "lengths that are no numbers": ("x", body(PICTURES).replace(b"Content-Length: ", b"Content-Length: about ")),
    "an end in between": ("x", body(PICTURES, between=b"\r\n--x--\r\n--x\r\n")),
}


def parts(boundary: str, data: bytes, step: int) -> list[bytes]:
    pieces = iter([data[at : at + step] for at in range(0, len(data), step)])
    reader = Multipart(lambda: next(pieces, b""), boundary, "cam")
    found = []
    while (part := reader.next()) is not None:
        found.append(part)
    return found


def means(found: list[bytes]) -> list[int]:
    images = [cv2.imdecode(np.frombuffer(part, np.uint8), cv2.IMREAD_COLOR) for part in found]
    return [round(float(image.mean())) for image in images if image is not None]


@pytest.mark.parametrize("step", [1, 7, 1000, 10**6])
@pytest.mark.parametrize("name", STREAMS)
def test_parts_are_found_however_they_are_sent(name: str, step: int) -> None:
    boundary, data = STREAMS[name]
    assert means(parts(boundary, data, step)) == VALUES


@pytest.mark.parametrize("wrong", [3, -3, 200, -200], ids=str)
def test_wrong_lengths_cost_frames_and_never_the_stream(wrong: int) -> None:
    data = re.sub(rb"Content-Length: (\d+)", lambda m: b"Content-Length: %d" % (int(m[1]) + wrong), body(PICTURES * 4))
    assert len(means(parts("x", data, 1000))) >= (5 if wrong > 0 else 0)
    healed = data + b"\r\n" + body(PICTURES)
    assert means(parts("x", healed, 1000))[-4:] == VALUES[-4:]


@given(st.lists(st.sampled_from([b"--x", b"\r\n", b"\n", b":", b"a", b"\xff\xd8", b"\xff\xd9", b"--", jpeg(9)])))
def test_no_stream_brings_the_reader_down(pieces: list[bytes]) -> None:
    for boundary in ("x", ""):
        assert len(parts(boundary, b"".join(pieces), 5)) <= len(pieces) + 1


def test_a_stream_without_a_picture_or_without_an_end_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("camera_capture.multipart.MAX_PART", 100_000)
    for piece in (b"a" * 1000, b"a: b\r\n", b"\r\n", b"\xff\xd8" + b"a" * 1000):
        reader = Multipart(lambda piece=piece: piece, "x", "cam")  # type: ignore[misc]
        with pytest.raises(SourceError, match="cam: "):
            for _ in range(300):
                reader.next()
    assert MAX_LINE < 100_000


def multipart(boundary: str, data: bytes) -> bytes:
    return OK + f"Content-Type: multipart/x-mixed-replace; boundary={boundary}\r\n\r\n".encode() + data


def seen(source: HttpPictures, count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        assert source.grab()
        found.append(round(float(source.retrieve().mean())))
    return found


@pytest.fixture
def server() -> Iterator[RawServer]:
    with raw_server(sends(b"")) as running:
        yield running


def camera(server: RawServer, path: str = "/v", user: str = "", **options: float) -> HttpPictures:
    url = server.url.replace("://", f"://{user}@") if user else server.url
    options = {"stall_timeout_s": 2, **options}
    source = source_of(type="http", location=f"{url}{path}", **options)
    assert isinstance(source, HttpPictures)
    return source


@pytest.mark.parametrize("kind", ["plain", "chunked"])
def test_a_stream_of_an_esp32_is_a_camera(server: RawServer, kind: str) -> None:
    data = body(PICTURES, first=b"")
    if kind == "chunked":
        data = b"".join(
            b"%x\r\n%b\r\n" % (len(data[at : at + 99]), data[at : at + 99]) for at in range(0, len(data), 99)
        )
        head = OK + b"Content-Type: multipart/x-mixed-replace;boundary=x\r\nTransfer-Encoding: chunked\r\n\r\n"
        server.behave = sends(head + data + b"0\r\n\r\n")
    else:
        server.behave = sends(multipart("x", data))
    source = camera(server)
    try:
        source.open()
        assert source.live
        assert seen(source, 5) == VALUES
        with pytest.raises(SourceError, match="the stream ended"):
            source.grab()
    finally:
        source.close()


def test_a_part_that_cannot_be_decoded_is_one_frame_less_and_no_new_connection(server: RawServer) -> None:
    server.behave = sends(multipart("x", body([PICTURES[0], PICTURES[1][:-40], b"nonsense", PICTURES[2]])))
    source = camera(server)
    try:
        found: list[object] = []
        for _ in range(4):
            assert source.grab()
            try:
                found.append(round(float(source.retrieve().mean())))
            except UndecodableError:
                found.append(None)
        assert found == [20, None, None, 100]
    finally:
        source.close()
    assert server.connections == 1


def test_a_size_that_changes_midway_is_the_size_of_the_frames(server: RawServer) -> None:
    server.behave = sends(multipart("x", body([jpeg(9), jpeg(9, 64, 48)])))
    source = camera(server)
    try:
        shapes = [source.grab() and source.retrieve().shape for _ in range(2)]
        assert shapes == [(16, 32, 3), (48, 64, 3)]
    finally:
        source.close()


@pytest.mark.parametrize("kind", ["image/jpeg", "Image/JPEG; charset=x", "application/octet-stream", ""])
def test_a_snapshot_url_is_a_camera_that_is_asked_again_and_again(server: RawServer, kind: str) -> None:
    def behave(sock: socket.socket, ended: threading.Event) -> None:
        picture = PICTURES[(len(server.requests) - 1) % 5]
        sock.sendall(OK + f"Content-Type: {kind}\r\nContent-Length: {len(picture)}\r\n\r\n".encode() + picture)

    server.behave = behave
    source = camera(server, every_s=0.5)
    try:
        source.open()
        assert (source.live, source.fps) == (False, 2.0)
        assert seen(source, 7) == [*VALUES, 20, 60]
    finally:
        source.close()
    assert len(server.requests) == 7


def test_a_snapshot_without_a_rate_is_taken_each_second(server: RawServer) -> None:
    server.behave = sends(OK + b"Content-Type: image/jpeg\r\n\r\n" + PICTURES[0])
    source = camera(server)
    source.open()
    assert source.fps == 1.0
    source.close()


@pytest.mark.parametrize("name", [n for n in ENDLESS if n != "100 Continue floods"])
def test_a_server_that_never_comes_to_an_end_is_left_in_time(server: RawServer, name: str) -> None:
    server.behave = ENDLESS[name]
    source = camera(server, stall_timeout_s=0.2)
    began = time.monotonic()
    with pytest.raises(SourceError, match=r"^http://127\.0\.0\.1:\d+/v: "):
        source.grab()
    source.close()
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("kind", ["multipart/x-mixed-replace; boundary=x", "image/jpeg"])
def test_a_picture_that_trickles_is_left_in_time(server: RawServer, kind: str) -> None:
    def behave(sock: socket.socket, ended: threading.Event) -> None:
        sock.sendall(
            OK + f"Content-Type: {kind}\r\n\r\n".encode() + (b"--x\r\n\r\n\xff\xd8" if "multi" in kind else b"")
        )
        while not ended.wait(0.02):
            sock.sendall(b"\0")

    server.behave = behave
    source = camera(server, stall_timeout_s=0.2)
    with pytest.raises(SourceError, match="timed out"):
        source.grab()
    source.close()


def test_a_read_that_waits_is_woken_by_cancel(server: RawServer) -> None:
    server.behave = endless(multipart("x", b""), b"", 20)
    source = camera(server, stall_timeout_s=15)
    source.open()
    errors: list[Exception] = []

    def read() -> None:
        try:
            source.grab()
        except SourceError as error:
            errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    source.cancel()
    reader.join(5)
    source.close()
    assert len(errors) == 1


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


@pytest.mark.parametrize("status", ["404 Not Found", "500 Oops", "503 Busy", "204 Nothing"])
def test_other_answers_are_told(server: RawServer, status: str) -> None:
    server.behave = sends(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode())
    source = camera(server)
    with pytest.raises(SourceError, match=f"/v: HTTP {status}"):
        source.grab()
    source.close()


def test_what_is_neither_picture_nor_stream_of_pictures_is_left_to_ffmpeg(server: RawServer) -> None:
    server.behave = sends(OK + b"Content-Type: video/x-unknown\r\n\r\nnothing")
    source = camera(server, stall_timeout_s=0.5)
    with pytest.raises(SourceError, match="/v: cannot be opened as http"):
        source.grab()
    source.close()
    assert any(b"Lavf" in request for request in server.requests)


def test_a_page_is_told_as_one(server: RawServer) -> None:
    server.behave = sends(OK + b"Content-Type: text/html\r\n\r\n<html>Please log in")
    source = camera(server)
    with pytest.raises(SourceError, match="answers with a page"):
        source.grab()
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


def test_a_process_with_a_stream_and_a_snapshot_url(server: RawServer, tmp_path: Path) -> None:
    part = body([*PICTURES, b"nonsense"], first=b"--x\r\n").removesuffix(b"--x--\r\n")
    snapshot = OK + b"Content-Type: image/jpeg\r\n\r\n" + PICTURES[2]

    def behave(sock: socket.socket, ended: threading.Event) -> None:
        if b"GET /snapshot" in server.requests[-1]:
            sock.sendall(snapshot)
        else:
            endless(multipart("x", b""), part, 0.02)(sock, ended)

    server.behave = behave
    place = server.url.replace("http://", "http://r00t:s3cr3t@")
    cameras = {
        "stream": {"type": "http", "location": f"{place}/stream?p=s3cr3t"},
        "still": {"type": "http", "location": f"{place}/snapshot", "every_s": 0.05},
    }
    config = {"ring_directory": str(tmp_path), "cameras": cameras}
    with Standalone("camera_capture", config, tmp_path / "w") as running:
        assert running.message("edgeml/camera/stream/frame", count=20)["width"] == 32
        assert running.message("edgeml/camera/still/frame", count=4)["width"] == 32
        assert running.stop() == 0
    health = running.lines[-1]["payload"]
    assert health["counters"]["cameras.stream.undecodable"] >= 3
    assert "cameras.stream.reconnects" not in health["counters"]
    assert health["problems"] == []
    assert sum(b"/stream" in request for request in server.requests) == 1
    assert "s3cr3t" not in running.log + str(running.lines)
