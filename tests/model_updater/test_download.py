"""Downloads over bad networks: gone on with, bounded in time, and never more than was announced."""

import contextlib
import os
import resource
import socket
import threading
import time
from pathlib import Path

import pytest

from download_support import CONTENT, LIMITS, fetch, server_context
from model_updater.download import Limits, download
from model_updater.errors import Stopped, UpdateError
from ota_support import FileServer
from support import eventually


def test_a_file_arrives_whole(server: FileServer, tmp_path: Path) -> None:
    assert fetch(server.add(CONTENT), tmp_path / "part") == CONTENT
    assert server.requests[0][1] == ""


def test_what_is_on_disk_is_not_fetched_again(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(CONTENT[:1_000_000])
    assert fetch(server.add(CONTENT), tmp_path / "part") == CONTENT
    assert server.requests[0][1] == "bytes=1000000-"
    assert fetch("http://127.0.0.1:1/never-asked", tmp_path / "part") == CONTENT


def test_cut_connections_and_busy_servers_are_survived(server: FileServer, tmp_path: Path) -> None:
    url = server.add(CONTENT)
    server.cut_after = [500_000, 0, 700_000]
    server.statuses = [503, 429]
    assert fetch(url, tmp_path / "part") == CONTENT
    assert [wanted for _, wanted in server.requests] == ["", "", "", "bytes=500000-", "bytes=500000-", "bytes=1200000-"]


def test_a_fault_of_tls_is_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with FileServer(tls=server_context(tmp_path, monkeypatch)) as server:
        url = server.add(CONTENT)
        server.garbled = [500_000]
        assert fetch(url, tmp_path / "part") == CONTENT
    start = int(server.requests[1][1].removeprefix("bytes=").rstrip("-"))
    assert 400_000 < start <= 500_000, "what had arrived is kept"


def test_a_fault_of_the_disk_is_none_of_the_network(server: FileServer, tmp_path: Path) -> None:
    url = server.add(CONTENT)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(CONTENT) // 2, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            fetch(url, tmp_path / "part")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(server.requests) == 1


def test_what_was_fetched_is_on_the_disk(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    fetch(server.add(CONTENT), tmp_path / "part")
    assert synced == [len(CONTENT)]


def test_a_server_without_ranges_is_read_from_the_beginning(server: FileServer, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "part").write_bytes(b"other bytes")
    assert fetch(server.add(CONTENT), tmp_path / "part") == CONTENT


@pytest.mark.parametrize(("announced", "held"), [(len(CONTENT) - 1, 0), (len(CONTENT) + 1, 0), (len(CONTENT) + 5, 100)])
def test_an_object_of_another_size_is_refused(server: FileServer, tmp_path: Path, announced: int, held: int) -> None:
    (tmp_path / "part").write_bytes(CONTENT[:held])
    with pytest.raises(UpdateError, match="the object has"):
        fetch(server.add(CONTENT), tmp_path / "part", announced)
    assert (tmp_path / "part").stat().st_size == held


def test_a_shorter_object_than_what_we_hold_is_refused(server: FileServer, tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(CONTENT)
    with pytest.raises(UpdateError, match="fewer than"):
        fetch(server.add(CONTENT), tmp_path / "part", len(CONTENT) + 1)


def test_a_missing_object_fails_at_once(server: FileServer, tmp_path: Path) -> None:
    server.statuses = [404]
    with pytest.raises(UpdateError, match="HTTP 404"):
        fetch(server.add(CONTENT), tmp_path / "part")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("first", "drip"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"HTTP/1.1 200 ", b"O"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1;a=b\r\nx\r\n"),
    ],
    ids=["continue", "headers", "status line", "chunks"],
)
def test_a_server_that_drips_gets_no_more_than_the_time(tmp_path: Path, first: bytes, drip: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ended = threading.Event()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while not ended.is_set():
                    connection, _ = listening.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.recv(65536)
                        connection.sendall(first)
                        while not ended.wait(0.02):
                            connection.sendall(drip)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        started = time.monotonic()
        with pytest.raises(UpdateError, match="no more time"):
            fetch(
                f"http://127.0.0.1:{listening.getsockname()[1]}/x",
                tmp_path / "part",
                limits=Limits(total_s=0.5, stall_s=30, allow_http=True),
            )
        assert time.monotonic() - started < 5
        ended.set()
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_time_runs_out(tmp_path: Path) -> None:
    with pytest.raises(UpdateError, match="no more time"):
        fetch("http://127.0.0.1:1/", tmp_path / "part", limits=Limits(total_s=0.1, stall_s=1, allow_http=True))


def test_a_stalled_connection_is_left(server: FileServer, tmp_path: Path) -> None:
    server.pause = threading.Event()
    url = server.add(CONTENT)
    reader = threading.Thread(
        target=fetch, args=(url, tmp_path / "part"), kwargs={"limits": Limits(total_s=10, stall_s=0.3, allow_http=True)}
    )
    reader.start()
    eventually(lambda: len(server.requests) > 1, 5, "a second connection")
    server.pause.set()
    reader.join(5)
    assert (tmp_path / "part").read_bytes() == CONTENT


def test_a_stop_is_heard_and_keeps_what_arrived(server: FileServer, tmp_path: Path) -> None:
    server.pause = threading.Event()
    url, stopping, seen = server.add(CONTENT), threading.Event(), []

    def progress(done: int) -> None:
        seen.append(done)
        stopping.set()
        assert server.pause is not None
        server.pause.set()

    started = time.monotonic()
    with pytest.raises(Stopped):
        download(lambda renew: url, tmp_path / "part", len(CONTENT), LIMITS, stopping, progress)
    assert time.monotonic() - started < 3
    assert (tmp_path / "part").stat().st_size == seen[-1] > 0
