"""The WebSocket of a page, of the real process."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from monitor import live
from monitor_support import QUIET
from support import Standalone, eventually

REPORT = {"component": "x", "version": "1", "at": 1, "uptime_s": 1, "counters": {}, "rates": {}, "latency_ms": {}}
REPORT |= {"gauges": {}, "notes": {}, "last_error": None}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    with Standalone("monitor", {**QUIET, "auth": "off"}, tmp_path_factory.mktemp("monitor")) as running:
        eventually(lambda: "address=http://" in running.log, what="the page's address")
        yield running


@pytest.fixture
def base(running: Standalone) -> str:
    return running.log.partition("address=http://")[2].split()[0].rstrip("/")


def test_the_state_comes_at_once_and_as_it_changes(running: Standalone, base: str) -> None:
    with connect(f"ws://{base}/ws", origin=f"http://{base}", proxy=None) as page:  # type: ignore[arg-type]
        assert json.loads(page.recv(10))["state"]["components"] == []
        running.send("edgeml/health/X", REPORT)
        assert json.loads(page.recv(10))["state"]["components"][0]["name"] == "edgeml.X"


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:1"])
def test_another_page_is_refused(base: str, origin: str) -> None:
    with pytest.raises(InvalidStatus):
        connect(f"ws://{base}/ws", origin=origin, proxy=None)  # type: ignore[arg-type]


def test_another_host_is_refused(base: str) -> None:
    with pytest.raises(InvalidStatus):
        connect(f"ws://evil.example:{base.rpartition(':')[2]}/ws", sock=socket_to(base), proxy=None)


def socket_to(base: str) -> socket.socket:
    host, _, port = base.partition(":")
    return socket.create_connection((host, int(port)), timeout=10)


@pytest.mark.parametrize("message", ["x" * 5000, b"\x00"])
def test_what_is_too_long_or_binary_ends_that_page_alone(base: str, message: str | bytes) -> None:
    with connect(f"ws://{base}/ws", proxy=None) as page, connect(f"ws://{base}/ws", proxy=None) as other:
        page.send(message)
        with pytest.raises(ConnectionClosed):
            for _ in range(3):
                page.recv(10)
        assert other.recv(10)


def test_pages_are_bounded(base: str) -> None:
    pages = [connect(f"ws://{base}/ws", proxy=None) for _ in range(live.MAX_PAGES)]
    with pytest.raises(InvalidStatus):
        connect(f"ws://{base}/ws", proxy=None)
    for page in pages:
        page.close()


def test_without_a_session_it_is_refused(tmp_path: Path) -> None:
    with Standalone("monitor", {"port": 0}, tmp_path / "work") as running:
        eventually(lambda: "address=http://" in running.log, what="the page's address")
        with pytest.raises(InvalidStatus):
            connect(f"ws://{running.log.partition('address=http://')[2].split()[0]}ws", proxy=None)
