"""Passwords of cameras in secrets: had from the core, kept for a start without a network, and shown to nobody."""

import base64
import json
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from camera_capture.kinds.rtsp import RtspCamera
from camera_capture.passwords import Password, Passwords
from camera_support import configured
from edgeml.component import Context
from edgeml.errors import ConfigError, NotFoundError, SourceError
from edgeml.health import Health
from hostile_http import OK, RawServer, raw_server, sends
from http_camera_support import PICTURES
from ipc_support import FakeIpc
from support import Standalone, eventually

PASSWORD = "p@ss/w:rd %41#é"
REFERENCE = {"secret": "cameras", "key": "door"}


@pytest.fixture
def server() -> Iterator[RawServer]:
    """Gives a snapshot to whoever knows the password, and 401 to others."""
    with raw_server(sends(b"")) as made:

        def behave(sock: socket.socket, ended: threading.Event) -> None:
            if base64.b64encode(f"admin:{PASSWORD}".encode()) in made.requests[-1]:
                size = len(PICTURES[2])
                sock.sendall(OK + b"Content-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % size + PICTURES[2])
            else:
                sock.sendall(b'HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm="c"\r\nContent-Length: 0\r\n\r\n')

        made.behave = behave
        yield made


def running(server: RawServer, folder: Path, secrets: dict[str, Any]) -> Standalone:
    location = server.url.replace("://", "://admin@") + "/v"
    camera = {"type": "http", "location": location, "every_s": 0.05, "password": REFERENCE, "reconnect_min_s": 0.05}
    camera |= {"reconnect_max_s": 0.2}
    config = {"ring_directory": str(folder), "cameras": {"door": camera}, "secrets": secrets}
    return Standalone("camera_capture", config, folder / "w", env={"AWS_EC2_METADATA_DISABLED": "true"})


def test_a_camera_opens_with_a_secret_and_again_without_whoever_gave_it(server: RawServer, tmp_path: Path) -> None:
    with running(server, tmp_path, {"cameras": json.dumps({"door": PASSWORD})}) as first:
        first.message("edgeml/camera/door/frame", count=2)
        first.stop()
    (kept,) = (tmp_path / "w").rglob("passwords/*")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (kept, kept.parent)] == [0o600, 0o700]
    with running(server, tmp_path, {}) as second:
        second.message("edgeml/camera/door/frame", count=2)
        second.logged("secret_missing")
        second.stop()
    for one in (first, second):
        assert not any(piece in one.log + json.dumps(one.lines) for piece in ("p@ss", "p%40ss", "w:rd", "w%3Ard"))


def test_a_password_that_was_never_known_is_told_and_nothing_waits_for_ever(server: RawServer, tmp_path: Path) -> None:
    with running(server, tmp_path, {}) as one:
        one.logged("password: secret cameras")
        assert one.stop() == 0
    assert server.requests == []


class Core(FakeIpc):
    """Gives the secrets that it has."""

    def __init__(self) -> None:
        super().__init__(lambda call, topic: None)
        self.secrets: dict[str, str] = {}

    def secret(self, secret_id: str) -> str:
        if secret_id not in self.secrets:
            raise NotFoundError(f"no {secret_id}")
        return self.secrets[secret_id]


@pytest.fixture
def core(monkeypatch: pytest.MonkeyPatch) -> Core:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return Core()


def context_of(core: Core, work: Path) -> Context:
    health = Health("edgeml.CameraCapture", "1")
    return Context(ipc=core, health=health, work=work, root=work, thing_name="t")


def test_a_password_that_changed_is_found_and_kept(core: Core, tmp_path: Path) -> None:
    door = Password("plain")
    core.secrets["plain"] = "old"
    first = context_of(core, tmp_path)
    assert Passwords(first).get(door, 5) == "old"
    first.stopping.set()
    core.secrets["plain"] = "new"
    second = context_of(core, tmp_path)
    passwords = Passwords(second)
    try:
        assert passwords.get(door, 5) in ("old", "new")  # what is on disk, at once
        eventually(lambda: passwords.get(door, 0) == "new", what="the new password")
        assert [path.read_text() for path in (tmp_path / "passwords").iterdir()] == ["new"]
    finally:
        second.stopping.set()


def test_what_is_not_configured_any_more_is_removed(core: Core, tmp_path: Path) -> None:
    core.secrets |= {"a": "1", "b": "2"}
    context = context_of(core, tmp_path)
    passwords = Passwords(context)
    try:
        for secret in ("a", "b"):
            passwords.get(Password(secret), 5)
        assert len(list((tmp_path / "passwords").iterdir())) == 2
        passwords.keep({Password("b")})
        assert [path.read_text() for path in (tmp_path / "passwords").iterdir()] == ["2"]
    finally:
        context.stopping.set()


def test_a_kept_password_that_is_no_file_of_ours_is_not_read(core: Core, tmp_path: Path) -> None:
    core.secrets["a"] = "1"
    first = context_of(core, tmp_path)
    Passwords(first).get(Password("a"), 5)
    (kept,) = (tmp_path / "passwords").iterdir()
    first.stopping.set()
    kept.unlink()
    (tmp_path / "stranger").write_text("x")
    kept.symlink_to(tmp_path / "stranger")
    core.secrets.clear()
    second = context_of(core, tmp_path)
    try:
        with pytest.raises(SourceError, match="password: secret a"):
            Passwords(second).get(Password("a"), 20)
    finally:
        second.stopping.set()


def test_any_password_is_part_of_the_url_as_it_is() -> None:
    camera = configured(type="rtsp", location="rtsp://admin@192.0.2.7/stream?a=b", password=REFERENCE)
    camera.check("cameras.c")
    assert isinstance(camera, RtspCamera)
    assert camera.unlocked(lambda reference: PASSWORD).where == (
        "rtsp://admin:p%40ss%2Fw%3Ard%20%2541%23%C3%A9@192.0.2.7/stream?a=b"
    )
    plain = configured(type="rtsp", location="rtsp://192.0.2.7/stream")
    assert plain.unlocked(lambda reference: PASSWORD) is plain


@pytest.mark.parametrize("location", ["rtsp://192.0.2.7/s", "rtsp://admin:s3cret@192.0.2.7/s", "rtsp://:x@192.0.2.7/s"])
def test_a_password_needs_a_user_and_no_other_password(location: str) -> None:
    with pytest.raises(ConfigError, match=r"cameras.c.location: expected rtsp://user@host") as caught:
        configured(type="rtsp", location=location, password=REFERENCE).check("cameras.c")
    assert "s3cret" not in str(caught.value)
