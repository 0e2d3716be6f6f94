"""The HTTP server under the local cloud: connections stay open, and whatever the application does they stay in step."""

import http.client
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import Any

import pytest

from localdev.cloud import serving
from localdev.cloud.serving import Server
from support import eventually


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Echoes the body at /echo; elsewhere it does not read it. Never tells a length."""
    path = environ["PATH_INFO"]
    if path == "/fail":
        raise ValueError("as the test wants it")
    start_response("204 No Content" if path == "/nothing" else "200 OK", [("X-Path", path)])
    return [environ["wsgi.input"].read()] if path == "/echo" else [b"some", b"thing"]


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server(application, name="http")
    yield running
    running.stop()


@pytest.fixture
def connection(server: Server) -> Iterator[http.client.HTTPConnection]:
    with closing(http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=5)) as made:
        yield made


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    connection.request(method, path, body, encode_chunked=True)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_one_connection_serves_all_kinds_of_requests(connection: http.client.HTTPConnection) -> None:
    assert ask(connection, "POST", "/unread", b"x" * 100_000) == (200, b"something")
    used = connection.sock
    assert ask(connection, "PUT", "/echo", b"body") == (200, b"body")
    assert ask(connection, "PUT", "/echo", iter([b"in ", b"chunks"])) == (200, b"in chunks")
    assert ask(connection, "HEAD", "/echo") == (200, b"")
    assert ask(connection, "DELETE", "/nothing") == (204, b"")
    assert ask(connection, "GET", "/") == (200, b"something")
    assert connection.sock is used


def test_an_error_of_the_application_is_a_500_and_logged(
    connection: http.client.HTTPConnection, caplog: pytest.LogCaptureFixture
) -> None:
    assert ask(connection, "GET", "/fail")[0] == 500
    assert "as the test wants it" in caplog.text
    assert ask(connection, "GET", "/") == (200, b"something")


def test_a_body_above_the_limit_is_refused(
    connection: http.client.HTTPConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "MAX_BODY_BYTES", 10)
    assert ask(connection, "PUT", "/echo", b"x" * 10) == (200, b"x" * 10)
    assert ask(connection, "PUT", "/echo", b"x" * 11)[0] == 413
    assert ask(connection, "GET", "/") == (200, b"something"), "on a new connection"


def test_stop_ends_idle_connections_and_frees_the_port(server: Server, connection: http.client.HTTPConnection) -> None:
    ask(connection, "GET", "/")
    idle = connection.sock
    server.stop()
    assert eventually(lambda: idle.recv(1) == b"", what="the end of the connection")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.server_port), timeout=1).close()
