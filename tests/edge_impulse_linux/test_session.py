import base64
import hashlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from edge_impulse_linux.identity import Identity
from edge_impulse_linux.ingestion import Ingestion
from edge_impulse_linux.sampling import Sampler
from edge_impulse_linux.session import Session
from edgeml.errors import StudioError
from edgeml.health import Health

WELCOME = b'\x81\x0e{"hello":true}'
IDENTITY = Identity("02:00:00:00:00:01", "door")


class DeafServer:
    """Shakes hands and says hello, then never answers anything, not even pings, and keeps the connection open."""

    def __init__(self, greeting: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"ws://127.0.0.1:{self._listener.getsockname()[1]}"
        self._greeting = greeting
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(4096)
            (key,) = [
                line.split(b": ")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")
            ]
            accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())  # noqa: S324
            connection.sendall(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + self._greeting
            )
            while connection.recv(4096):
                pass

    def close(self) -> None:
        self._listener.close()
        self._thread.join()


@pytest.fixture
def servers() -> Iterator[list[DeafServer]]:
    started: list[DeafServer] = []
    yield started
    for server in started:
        server.close()


def session(url: str, **settings: Any) -> Session:
    health = Health("test", "1")
    sampler = Sampler({}, Ingestion("http://127.0.0.1:9", "k", IDENTITY), "", health, jpeg_quality=90)

    def spawn(name: str, work: Any) -> threading.Thread:
        raise AssertionError("nothing is asked for here")

    return Session(url, "k", IDENTITY, [], sampler, None, health, spawn, snapshot_fps=5, **settings)


def test_a_studio_that_answers_no_ping_is_left(servers: list[DeafServer]) -> None:
    servers.append(DeafServer(WELCOME))
    welcomed: list[bool] = []
    with pytest.raises(StudioError, match="keepalive ping timeout"):
        session(servers[0].url, ping_interval_s=0.1, pong_timeout_s=0.2).run(
            lambda: welcomed.append(True), lambda: False
        )
    assert welcomed == [True]


@pytest.mark.parametrize("greeting", [b"\x81\x05hello", b'\x81\x1c{"hello":false,"err":"full"} '])
def test_an_answer_to_hello_that_is_no_welcome_is_an_error(servers: list[DeafServer], greeting: bytes) -> None:
    servers.append(DeafServer(greeting))
    with pytest.raises(StudioError, match=r"no JSON|full"):
        session(servers[0].url).run(lambda: None, lambda: False)


def test_a_studio_out_of_reach_is_an_error() -> None:
    with pytest.raises(StudioError, match=r"ws://127\.0\.0\.1:9"):
        session("ws://127.0.0.1:9").run(lambda: None, lambda: False)
