"""The bounds of connections, in this process, where their times can be made short."""

import socket
import threading
from pathlib import Path

import pytest
from websockets.sync.client import connect

from edgeml.messages import Problem
from monitor import server
from monitor.app import application
from monitor.errors import ServerError
from monitor.server import Server
from monitor.state import State
from monitor_support import ended, get, serving

PROBLEM = Problem(code="clock", subject="device", text="not set", since=1.0)


def test_the_folder_is_the_page_and_problems_are_health(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<!doctype html>")
    (tmp_path / "app.js").write_text("export {}")
    with serving(tmp_path, PROBLEM) as address:
        assert get(address, "/").text == "<!doctype html>"
        assert get(address, "/static/app.js").headers["content-type"].startswith("text/javascript")
        health = get(address, "/healthz")
        assert (health.status_code, health.text) == (503, "edgeml.Monitor clock device: not set\n")


SLOW = {
    "says nothing": b"",
    "half a request line": b"GET /hea",
    "headers without an end": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n",
    "a body without an end": b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999\r\n\r\nx",
    "a second request": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea",
}


def test_who_dawdles_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_S", 0.3)
    monkeypatch.setattr(server, "KEEP_ALIVE_S", 0.3)
    with serving(tmp_path) as address:
        peers = {case: socket.create_connection(address, timeout=10) for case in SLOW}
        for case, peer in peers.items():
            peer.sendall(SLOW[case])
        for case, peer in peers.items():
            with peer:
                assert ended(peer), case


def test_a_second_request_before_the_first_is_answered_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "REQUEST_S", 0.3)
    with serving(tmp_path) as address, socket.create_connection(address, timeout=2) as peer:
        first = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        peer.sendall(first + b"POST /sign-in HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n")
        assert ended(peer)


TRICKLES = [
    "GET /healthz HTTP/1.1\r\nX: ",
    "POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999\r\n\r\n",
]


@pytest.mark.parametrize("begin", TRICKLES, ids=["headers", "body"])
def test_who_says_a_byte_now_and_then_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, begin: str) -> None:
    monkeypatch.setattr(server, "REQUEST_S", 0.3)
    with serving(tmp_path) as address, socket.create_connection(address, timeout=10) as peer:
        peer.sendall(begin.encode())
        with pytest.raises(ConnectionError):
            for _ in range(200):  # of 0.05 s, in each of which a byte comes
                peer.sendall(b"x")
                threading.Event().wait(0.05)


def test_a_websocket_lasts_longer_than_a_request_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_S", 0.3)
    with serving(tmp_path) as address, connect(f"ws://{address[0]}:{address[1]}/ws", proxy=None) as page:
        threading.Event().wait(0.6)
        assert page.ping().wait(10)


def test_who_does_not_read_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "UNREAD_S", 0.3)
    with (tmp_path / "large.js").open("wb") as large:
        large.truncate(64_000_000)
    with serving(tmp_path) as address, socket.create_connection(address, timeout=30) as peer:
        peer.sendall(b"GET /static/large.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert threading.Event().wait(1.0) is False  # a reader that comes too late
        received = 0
        with_reset = False
        try:
            while data := peer.recv(1 << 20):
                received += len(data)
        except ConnectionResetError:
            with_reset = True
        assert with_reset or received < 64_000_000


def test_an_address_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(ServerError, match=r"127\.0\.0\.1:\d+ cannot"):
        Server(application(Path(), State("thing", "1", tuple)), other.getsockname()[1])
