import contextlib
import datetime
import ipaddress
import os
import resource
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgeml.errors import DisconnectedError, IpcError
from model_updater import download as module
from model_updater.download import Limits, check_url, download
from model_updater.errors import JobGone, Stopped, UpdateError
from ota_support import FileServer
from support import eventually

CONTENT = bytes(range(256)) * 8000
LIMITS = Limits(total_s=10, stall_s=5, allow_http=True)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer() as running:
        yield running


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.01)


def fetch(url: str, path: Path, size: int = len(CONTENT), limits: Limits = LIMITS) -> bytes:
    download(lambda renew: url, path, size, limits, threading.Event())
    return path.read_bytes()


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


def server_context(folder: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A TLS server for 127.0.0.1 whose certificate clients accept."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    encoding, private = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    file = folder / "server.pem"
    file.write_bytes(
        key.private_bytes(encoding, private, serialization.NoEncryption()) + certificate.public_bytes(encoding)
    )
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


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


@pytest.mark.parametrize("status", [400, 401, 403])
def test_an_expired_url_is_renewed(server: FileServer, tmp_path: Path, status: int) -> None:
    server.statuses = [status]
    old, new = server.add(CONTENT, "/old"), server.add(CONTENT, "/new")
    asked: list[bool] = []

    def url(renew: bool) -> str:
        asked.append(renew)
        return new if renew else old

    download(url, tmp_path / "part", len(CONTENT), LIMITS, threading.Event())
    assert asked == [False, True]
    assert [path for path, _ in server.requests] == ["/old", "/new"]


def test_while_aws_iot_does_not_answer_a_fresh_url_is_asked_for_again(server: FileServer, tmp_path: Path) -> None:
    server.statuses = [403, 403]
    old, new = server.add(CONTENT, "/old"), server.add(CONTENT, "/new")
    answers = iter([IpcError("no answer"), None])

    def url(renew: bool) -> str:
        if renew and (error := next(answers)):
            raise error
        return new if renew else old

    download(url, tmp_path / "part", len(CONTENT), LIMITS, threading.Event())
    assert [path for path, _ in server.requests] == ["/old", "/old", "/new"]


@pytest.mark.parametrize("final", [JobGone("cancelled"), DisconnectedError("the socket is gone")])
def test_an_answer_that_ends_the_job_or_the_process_ends_the_download(
    server: FileServer, tmp_path: Path, final: IpcError
) -> None:
    server.statuses = [403]
    old = server.add(CONTENT)

    def url(renew: bool) -> str:
        if renew:
            raise final
        return old

    with pytest.raises(type(final)):
        download(url, tmp_path / "part", len(CONTENT), LIMITS, threading.Event())


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
    "url",
    [
        "http://host/x",
        "ftp://host/x",
        "file:///etc/passwd",
        "data:,x",
        "https:///x",
        "https://user:pw@host/x",
        "host/x",
        "https://host/a b",
        "https://host/a\nb",
        "https://host:port/",
    ],
)
def test_only_https_by_default(url: str) -> None:
    with pytest.raises(
        UpdateError, match=r"download URL .*(only https are allowed|must not hold a user name)"
    ) as refused:
        check_url(url, allow_http=False)
    assert "pw" not in str(refused.value)
    check_url("https://host/x", allow_http=False)
    check_url("http://host/x", allow_http=True)


def test_a_redirect_to_another_scheme_is_refused(server: FileServer, tmp_path: Path) -> None:
    server.statuses, server.location = [302], "ftp://127.0.0.1/etc/passwd"
    with pytest.raises(UpdateError, match="expected https or http"):
        fetch(server.add(CONTENT), tmp_path / "part")
    assert len(server.requests) == 1, "not asked again: it would say the same"


def test_a_redirect_from_https_to_http_is_refused_even_where_http_is_allowed(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FileServer(tls=server_context(tmp_path, monkeypatch)) as safe:
        safe.statuses, safe.location = [302], server.add(CONTENT)
        with pytest.raises(UpdateError, match="not encrypted"):
            fetch(f"{safe.url}/here", tmp_path / "part")
    assert server.requests == []


def test_a_url_that_can_never_work_is_not_asked_again(tmp_path: Path) -> None:
    with pytest.raises(UpdateError, match="a URL has no ' '"):
        fetch("http://127.0.0.1:1/a b?X-Amz-Signature=secret", tmp_path / "part")


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


def test_a_redirect_is_followed(server: FileServer, tmp_path: Path) -> None:
    server.location = server.add(CONTENT, "/there")
    server.statuses = [307]
    assert fetch(f"{server.url}/here", tmp_path / "part") == CONTENT


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
