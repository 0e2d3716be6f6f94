"""The component as a process, over real connections: what it serves, to whom, and how it moves and ends."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from monitor_support import QUIET
from support import Standalone, eventually


def address(running: Standalone, count: int = 1) -> str:
    """Where the page is after the `count`th start of its server."""
    eventually(lambda: running.log.count("address=http://") >= count, what="the page's address")
    found: list[str] = re.findall(r"address=(http://127\.0\.0\.1:\d+)/", running.log)
    return found[count - 1]


@pytest.fixture(scope="module")
def monitor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    with Standalone("monitor", QUIET, tmp_path_factory.mktemp("monitor")) as running:
        yield running


@pytest.fixture(scope="module")
def client(monitor: Standalone) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address(monitor), timeout=10, trust_env=False) as client:
        yield client


def test_health_while_nothing_is_wrong(client: httpx.Client) -> None:
    answer = client.get("/healthz")
    assert (answer.status_code, answer.text) == (200, "ok\n")


@pytest.mark.parametrize("path", ["/healthz", "/nowhere", "/static/nowhere.js"])
def test_every_answer_keeps_others_out(client: httpx.Client, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "server" not in headers


HOSTS = {
    "127.0.0.1": 200,
    "127.0.0.1:8484": 200,
    "localhost": 200,
    "LOCALHOST:1": 200,
    "evil.example": 421,
    "evil.example:8484": 421,
    "127.0.0.1.evil.example": 421,
    "localhost.": 421,
    "localhost:x": 421,
    "localhost:123456": 421,
    "localhost@evil.example": 421,
    "127.0.0.1:80:80": 421,
    "[::1]": 421,
    "192.0.2.1": 421,
    "": 421,
}


@pytest.mark.parametrize("host", HOSTS)
def test_only_the_device_by_its_own_name(client: httpx.Client, host: str) -> None:
    answer = client.get("/healthz", headers={"Host": host})
    assert answer.status_code == HOSTS[host]
    assert "content-security-policy" in answer.headers


OUTSIDE = ["..", "../component.py", "..%2fcomponent.py", "%2e%2e/config.py", "/etc/passwd", "%2fetc%2fpasswd", "x%00y"]


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_file_outside_the_page(client: httpx.Client, path: str) -> None:
    head = f"GET /static/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    assert b" 404 " in said(client, head).splitlines()[0]


BAD = {
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    "a long line": b"GET /" + b"x" * 40_000,
    "many headers": b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 10_000,
    "two lengths": b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "no number": b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
    "an odd method": b"BREW /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "an upgrade": b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\r\n",
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_refused_and_the_next_is_served(client: httpx.Client, case: str) -> None:
    first = said(client, BAD[case]).split(b"\r\n")[0]
    assert re.match(rb"HTTP/1.1 4\d\d |$", first), first
    assert client.get("/healthz").status_code == 200


def said(client: httpx.Client, request: bytes) -> bytes:
    """Everything that the server says to `request` until it ends the connection."""
    with socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=10) as peer:
        answer = b""
        try:
            peer.sendall(request)
            while data := peer.recv(65536):
                answer += data
        except ConnectionError:  # refused before all was sent
            pass
        return answer


def test_a_port_that_is_taken_is_a_problem_until_it_is_free_and_the_page_moves(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with Standalone("monitor", {**QUIET, "port": port}, tmp_path / "work") as running:
            eventually(lambda: "code=address_in_use" in running.log, what="the problem")
            other.close()
            assert address(running) == f"http://127.0.0.1:{port}"
            assert "problem is over code=address_in_use" in running.log
            with httpx.Client(trust_env=False) as client:
                assert client.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
                running.configure(QUIET)
                moved = address(running, 2)
                assert client.get(f"{moved}/healthz").status_code == 200
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=5)
            assert running.stop() == 0


def test_it_ends_at_once_with_connections_open(tmp_path: Path) -> None:
    with Standalone("monitor", {"port": 0}, tmp_path / "work") as running:
        where = httpx.URL(address(running))
        with socket.create_connection((where.host, where.port or 0)) as peer:
            peer.sendall(b"GET / HTTP/1.1\r\nHo")
            assert running.stop() == 0


def test_a_wrong_value_is_named(tmp_path: Path) -> None:
    with Standalone("monitor", {"port": 65536}, tmp_path / "work") as running:
        assert running.ended() == 78
        assert "configuration port" in running.log
