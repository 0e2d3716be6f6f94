"""Credentials that do not come: told apart from those that do, said, and a reason to end where that helps."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.utils import ContainerMetadataFetcher

from edgeml import credentials
from edgeml.credentials import TELL_AFTER, AwsClient, Credentials
from edgeml.errors import CloudError, CredentialsError
from edgeml.health import Health

GOOD = {"AccessKeyId": "a", "SecretAccessKey": "s", "Token": "t", "Expiration": "2037-01-01T00:00:00Z"}


class Process:
    def __init__(self, work: Path) -> None:
        self.health, self.work, self.ends = Health("test", "1"), work, []  # type: ignore[var-annotated]

    def fail(self, error: BaseException) -> None:
        self.ends.append(error)

    def codes(self) -> list[str]:
        return [problem.code for problem in self.health.problems.current()]


@contextmanager
def exchange(body: Callable[[], tuple[int, bytes]]) -> Iterator[str]:
    """Address of a token exchange service that answers with status and body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, data = body()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/2016-11-01/credentialprovider/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def unused_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setattr(ContainerMetadataFetcher, "SLEEP_TIME", 0)
    monkeypatch.setattr(ContainerMetadataFetcher, "RETRY_ATTEMPTS", 1)
    process = Process(tmp_path)
    credentials.watch(process)
    yield process
    credentials.watch(None)


def half(**changes: Any) -> bytes:
    fields = {**GOOD, **changes}
    return json.dumps({key: value for key, value in fields.items() if value is not ...}).encode()


NONE = {
    "null": b"null",
    "nothing": b"",
    "a list": b"[]",
    "a number": b"7",
    "HTML": b"<html><body>Login</body></html>",
    "cut off": b'{"AccessKeyId": "a", "Secr',
    "no secret key": half(SecretAccessKey=...),
    "no key id": half(AccessKeyId=...),
    "no token": half(Token=...),
    "no expiration": half(Expiration=...),
    "an empty key": half(SecretAccessKey=""),
    "a key that is null": half(AccessKeyId=None),
    "a key that is a number": half(AccessKeyId=5),
    "an odd expiration": half(Expiration="tomorrow"),
    "a null expiration": half(Expiration=None),
    "expired": half(Expiration="2020-01-01T00:00:00Z"),
    "not UTF-8": b"\xff\xfe",
    "a null token": half(Token=None),
    "an empty token": half(Token=""),
    "a token that is a number": half(Token=7),
    "a key of two lines": half(AccessKeyId="a\nX-Amz-Acl: public"),
}


@pytest.mark.parametrize("body", NONE.values(), ids=NONE.keys())
def test_what_holds_no_credentials_is_an_outage_until_some_come(
    body: bytes, process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [body]
    with exchange(lambda: (200, answers[-1])) as address:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", address)
        asked, client = Credentials(), AwsClient("s3")
        for attempt in range(TELL_AFTER):
            assert process.codes() == []
            with pytest.raises(CredentialsError, match="no AWS credentials"):
                asked.frozen()
            with pytest.raises(CloudError) if attempt == 0 else pytest.raises(CredentialsError):
                client.get()
        assert process.codes() == ["credentials"]
        answers.append(half())
        assert asked.frozen().access_key == "a"
        assert process.codes() == []
        assert client.get() is client.get()
    assert asked.frozen().access_key == "a"  # kept until it expires
    asked.forget()
    with pytest.raises(CredentialsError):
        asked.frozen()
    assert process.ends == []


def test_a_dead_address_ends_a_process_that_needs_it_once_an_hour(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", unused_address())
    for _ in range(3):  # processes one after the other
        asked = Credentials(patience_s=lambda: 0.0)
        for _ in range(3):
            with pytest.raises(CredentialsError):
                asked.frozen()
    assert len(process.ends) == 1
    assert "new process the new one" in str(process.ends[0])
    (process.work / credentials.ENDED).write_text('{"boot": "another", "uptime": 5}')
    with pytest.raises(CredentialsError):
        asked.frozen()
    assert len(process.ends) == 2


@pytest.mark.parametrize("damaged", ["", "null", "[]", "{}", '{"boot": 5}'])
def test_a_damaged_note_of_the_last_end_is_none(
    process: Process, monkeypatch: pytest.MonkeyPatch, damaged: str
) -> None:
    (process.work / credentials.ENDED).write_text(damaged)
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", unused_address())
    with pytest.raises(CredentialsError):
        Credentials(patience_s=lambda: 0.0).frozen()
    assert len(process.ends) == 1


def test_the_process_is_given_minutes(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", unused_address())
    asked = Credentials()
    for _ in range(5):
        with pytest.raises(CredentialsError):
            asked.frozen()
    assert process.ends == []


@pytest.mark.parametrize(
    ("status", "body", "ends"), [(200, b"null", 0), (500, b"no cloud", 0), (200, b"<html></html>", 1)]
)
def test_a_service_without_a_cloud_is_alive_and_another_program_is_not(
    process: Process, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, ends: int
) -> None:
    with exchange(lambda: (status, body)) as address:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", address)
        with pytest.raises(CredentialsError):
            Credentials(patience_s=lambda: 0.0).frozen()
    assert len(process.ends) == ends


def test_keys_of_the_environment_need_no_token(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b"), ("SESSION_TOKEN", "")):
        monkeypatch.setenv(f"AWS_{name}", value)
    assert Credentials().frozen().access_key == "a"


def test_without_an_address_a_new_process_would_not_help(process: Process) -> None:
    asked = Credentials(patience_s=lambda: 0.0)
    for _ in range(TELL_AFTER):
        with pytest.raises(CredentialsError, match="TokenExchangeService"):
            asked.frozen()
    assert (process.codes(), process.ends) == (["credentials"], [])
