import hashlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from edge_impulse_runner import models
from edge_impulse_runner.config import Model
from edge_impulse_runner.models import ModelFinder
from edgeml.edge_impulse.parameters import Parameters, interpret
from edgeml.edge_impulse.studio import Studio, endpoints
from edgeml.errors import BundleError, StudioError

TYPE = "runner-linux-x86_64"


class FakeStudio(ThreadingHTTPServer):
    """The part of Studio's API that a download needs; `requests` is what was asked, with the API key."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[tuple[str, str, str]] = []
        self.built = True
        self.version = 7
        self.builds_well = True
        self.cut_short = False
        self.model = b"#!/bin/sh\n"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeStudio

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self._answer()

    def _answer(self) -> None:
        studio = self.server
        key = self.headers.get("x-api-key", "")
        studio.requests.append((self.command, self.path.removeprefix("/v1/api/"), key))
        path, _, query = self.path.removeprefix("/v1/api/").partition("?")
        if key != "ei_good":
            return self._json({"success": False, "error": "Invalid API key"})
        match path:
            case "projects":
                return self._json({"success": True, "projects": [{"id": 3, "name": "Cars"}]})
            case "3/deployment":
                assert query == f"type={TYPE}&modelType=float32"
                found = {"hasDeployment": True, "version": studio.version} if studio.built else {"hasDeployment": False}
                return self._json({"success": True, **found})
            case "3/deployment/targets/data-sources":
                return self._json({"success": True, "targets": [{"format": TYPE, "preferredEngine": "tflite"}]})
            case "3/jobs/build-ondevice-model":
                studio.built = studio.builds_well
                return self._json({"success": True, "id": 12})
            case "3/jobs/12/status":
                job = {"finished": True, "finishedSuccessful": studio.builds_well}
                return self._json({"success": True, "job": job})
            case "3/deployment/download":
                return self._send(studio.model, extra=100 if studio.cut_short else 0)
        self.send_error(404)
        return None

    def _json(self, body: dict[str, Any]) -> None:
        self._send(json.dumps(body).encode())

    def _send(self, body: bytes, extra: int = 0) -> None:
        self.send_response(200)
        self.send_header("content-length", str(len(body) + extra))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def studio() -> Iterator[FakeStudio]:
    with FakeStudio() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Device:
    """A core's folders, and what the finder finds in them."""

    def __init__(self, folder: Path) -> None:
        self.root, self.work = folder, folder / "work" / "edgeml.EdgeImpulseRunner"
        self.work.mkdir(parents=True)

    def finder(self, model: Model | None = None, api: str = "", key: str = "ei_good", file: str = "") -> ModelFinder:
        settings = interpret(Parameters(ei_local_model_file=file))
        config = model or Model(deployment=TYPE)
        return ModelFinder(settings, config, root=self.root, work=self.work, studio=lambda: Studio(key, api, 5.0))

    def bundle(self, component: str, name: str, content: bytes, **manifest: str) -> Path:
        folder = self.root / "work" / component / name
        folder.mkdir(parents=True)
        (folder / "model.eim").write_bytes(content)
        (folder / "model.eim").chmod(0o755)
        if manifest:
            (folder / "model.json").write_text(json.dumps(manifest))
        return folder / "model.eim"


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def located(finder: ModelFinder) -> Path:
    return finder.locate(threading.Event())


def test_a_file_wins_and_needs_no_studio(device: Device, tmp_path: Path) -> None:
    file = tmp_path / "m.eim"
    file.write_bytes(b"#!")
    file.chmod(0o755)
    assert located(device.finder(file=str(file), api="http://127.0.0.1:9")) == file


def test_a_file_that_is_not_executable_is_copied_and_left_as_it_is(device: Device, tmp_path: Path) -> None:
    file = tmp_path / "m.eim"
    file.write_bytes(b"#!")
    file.chmod(0o644)
    finder = device.finder(file=str(file))
    copy = located(finder)
    assert copy.parent == device.work
    assert os.access(copy, os.X_OK)
    assert (copy.read_bytes(), file.stat().st_mode & 0o777) == (b"#!", 0o644)
    assert located(finder) == copy
    file.write_bytes(b"#! changed")
    os.utime(file, ns=(1, 1))
    newer = located(finder)
    assert newer.read_bytes() == b"#! changed"
    assert list(device.work.glob("model-*.eim")) == [newer]


def test_a_socket_is_attached_to(device: Device, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        assert located(device.finder(file=str(tmp_path / "s"))) == tmp_path / "s"


def test_a_bundle_is_waited_for_and_an_update_wins(device: Device) -> None:
    finder = device.finder(Model(bundle="Cars"))
    with pytest.raises(BundleError, match="waiting for model bundle Cars"):
        located(finder)
    first = device.bundle("edgeml.model.Cars", "current", b"1")
    assert located(finder) == finder.installed() == first
    second = device.bundle("edgeml.ModelUpdater", "models/Cars/current", b"2")
    assert located(finder) == finder.installed() == second


@pytest.mark.parametrize(
    ("component", "update", "found"),
    [("2.0.0", "1.0.0", b"component"), ("1.0.0", "1.0.0", b"update"), ("1.0.0", "1.0.1", b"update"),
     ("1.0.0", None, b"component"), (None, "1.0.0", b"update"), (None, None, b"update"), ("new", "1.0.0", b"update")],
)  # fmt: skip
def test_the_newest_bundle_is_taken(device: Device, component: str | None, update: str | None, found: bytes) -> None:
    versions = [{"version": version} if version else {} for version in (component, update)]
    device.bundle("edgeml.model.Cars", "current", b"component", **versions[0])
    device.bundle("edgeml.ModelUpdater", "models/Cars/current", b"update", **versions[1])
    assert located(device.finder(Model(bundle="Cars"))).read_bytes() == found


def test_a_bundle_that_is_damaged_is_refused(device: Device) -> None:
    device.bundle("edgeml.model.Cars", "current", b"1", sha256=hashlib.sha256(b"1").hexdigest())
    assert located(device.finder(Model(bundle="Cars"))).is_file()
    file = device.bundle("edgeml.model.Dogs", "current", b"1", sha256="0" * 64)
    with pytest.raises(BundleError, match="sha256"):
        located(device.finder(Model(bundle="Dogs")))
    with pytest.raises(BundleError, match="sha256"):
        located(device.finder(Model(bundle=str(file.parent))))


def test_download_from_studio_once(device: Device, studio: FakeStudio) -> None:
    finder = device.finder(api=studio.url)
    path = located(finder)
    assert path.read_bytes() == studio.model
    assert os.access(path, os.X_OK)
    assert path == device.work / "models" / f"3-v7-float32-{TYPE}" / "model.eim"
    asked = len(studio.requests)
    assert located(finder) == path
    assert [path for _, path, _ in studio.requests[asked:]] == [
        "projects",
        f"3/deployment?type={TYPE}&modelType=float32",
    ]
    assert {key for _, _, key in studio.requests} == {"ei_good"}
    assert finder.installed() is None


def test_a_new_version_replaces_the_old_one(device: Device, studio: FakeStudio) -> None:
    finder = device.finder(api=studio.url)
    located(finder)
    studio.version = 8
    assert "v8" in str(located(finder))
    assert len(list((device.work / "models").iterdir())) == 1


def test_a_model_that_was_never_built_is_built(
    device: Device, studio: FakeStudio, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(models, "BUILD_POLL_S", 0.01)
    studio.built = False
    assert located(device.finder(api=studio.url)).exists()
    assert ("POST", f"3/jobs/build-ondevice-model?type={TYPE}", "ei_good") in studio.requests
    studio.built = studio.builds_well = False
    with pytest.raises(StudioError, match="build job 12 of project 3 failed"):
        located(Device(tmp_path / "another").finder(api=studio.url))


def test_without_studio_the_model_downloaded_before_is_used(device: Device, studio: FakeStudio) -> None:
    path = located(device.finder(api=studio.url))
    assert located(device.finder(api="http://127.0.0.1:9")) == path


def test_errors_of_studio_are_told_without_the_key(device: Device, studio: FakeStudio) -> None:
    with pytest.raises(StudioError, match="Invalid API key") as caught:
        located(device.finder(api=studio.url, key="ei_bad"))
    assert "ei_bad" not in str(caught.value)
    assert "ei_bad" not in repr(Studio("ei_bad"))
    with pytest.raises(StudioError, match="refused"):
        located(device.finder(api="http://127.0.0.1:9"))


def test_a_download_that_is_cut_short_leaves_nothing(device: Device, studio: FakeStudio) -> None:
    studio.cut_short = True
    with pytest.raises(StudioError, match="cut short"):
        located(device.finder(api=studio.url))
    assert [path for path in (device.work / "models").rglob("*") if path.is_file()] == []


def test_a_studio_that_hangs_is_given_up(device: Device) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(StudioError, match="timed out"):
            Studio("ei_good", url, timeout_s=0.2).project()
        assert time.monotonic() - began < 20  # the server never answers


@pytest.mark.parametrize(
    ("host", "api", "remote", "ingestion"),
    [
        (
            "",
            "https://studio.edgeimpulse.com",
            "wss://remote-mgmt.edgeimpulse.com",
            "https://ingestion.edgeimpulse.com",
        ),
        ("acme.com", "https://studio.acme.com", "wss://remote-mgmt.acme.com", "https://ingestion.acme.com"),
        ("127.0.0.1", "http://127.0.0.1:4800", "ws://127.0.0.1:4802", "http://127.0.0.1:4810"),
        ("localhost", "http://localhost:4800", "ws://localhost:4802", "http://localhost:4810"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000", "ws://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("https://ei.acme.com/", "https://ei.acme.com", "wss://ei.acme.com", "https://ei.acme.com"),
    ],
)
def test_where_studio_is(host: str, api: str, remote: str, ingestion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EI_HOST", host)
    found = endpoints()
    assert (found.api, found.remote_management, found.ingestion) == (api, remote, ingestion)
    monkeypatch.delenv("EI_HOST")
    assert endpoints(host) == found
