"""One table of URLs, every component's error path: no user, password or query value in anything that it says."""

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_impulse_linux.session import Session
from edgeml import http
from edgeml.edge_impulse.studio import Studio
from edgeml.errors import EdgemlError
from edgeml.health import Health
from hostile_http import raw_server, sends
from inferencer.backends.http import HttpBackend, HttpModel
from inferencer.sources.request import RequestSource
from inferencer_support import make_context, pipeline
from log_shipper.endpoint import Endpoint
from model_updater.download import Limits, download
from support import Standalone, eventually

SECRETS = ("r00t", "s3c", "r3t", "v4lue")
# {place} is host:port, where a server answers or nobody does.
TABLE = {
    "user and password": "http://r00t:s3cr3t@{place}/v",
    "an @ inside": "http://r00t:s3c@r3t@{place}/v",
    "a slash inside": "http://r00t:s3c/r3t@{place}/v",
    "a hash inside": "http://r00t:s3c#r3t@{place}/v",
    "a blank inside": "http://r00t:s3c r3t@{place}/v",
    "a query": "http://{place}/v?loginuse=r00t&loginpas=s3cr3t",
    "a query with a blank": "http://{place}/v?usr=r00t&p=s3c r3t",
    "a query with an @": "http://{place}/v?usr=r00t&p=s3c@r3t",
    "a presigned URL": "http://{place}/k?X-Amz-Credential=r00t%2Fx&X-Amz-Signature=s3cr3tv4lue",
    "both": "http://r00t:s3cr3t@{place}/v?token=v4lue",
}


def inferencer(url: str, work: Path) -> None:
    context = make_context(work)
    backend = HttpBackend(url=url, task="regression", attempts=1, connect_timeout_s=0.5, read_timeout_s=0.5)
    model = HttpModel(backend, pipeline(backend, RequestSource()), context, "pipelines.p")
    try:
        model.ask(b"1,2")
    finally:
        model.close()


def studio(url: str, work: Path) -> None:
    Studio("ei_key", url, timeout_s=0.5).get("projects")


def session(url: str, work: Path) -> None:
    anything: Any = None
    url = url.replace("http://", "ws://")
    made = Session(url, "ei_key", anything, [], anything, None, Health("x", "1"), anything, snapshot_fps=1)
    made.run(lambda: None, lambda: True)


def updater(url: str, work: Path) -> None:
    limits = Limits(total_s=0.05, stall_s=0.5, allow_http=True)
    download(lambda renew: url, work / "model", 10, limits, threading.Event())


class Unsigned:
    def sign(self, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
        return headers


def shipper(url: str, work: Path) -> None:
    signer: Any = Unsigned()
    Endpoint(url, signer).call("X", b"{}")


def plain(url: str, work: Path) -> None:
    http.request("GET", url, http.Limits(total_s=0.5))


BORDERS: list[Callable[[str, Path], None]] = [inferencer, studio, session, updater, shipper, plain]


@pytest.fixture(scope="module")
def nobody() -> str:
    with raw_server(sends(b"")) as server:
        return server.url.partition("://")[2]


@pytest.fixture(scope="module")
def somebody() -> Iterator[str]:
    with raw_server(sends(b"HTTP/1.1 404 No\r\nContent-Length: 2\r\n\r\n{}")) as server:
        yield server.url.partition("://")[2]


@pytest.mark.parametrize("border", BORDERS, ids=lambda border: border.__name__)
@pytest.mark.parametrize("name", TABLE)
def test_errors_hold_no_secret_of_a_url(
    border: Callable[[str, Path], None], name: str, nobody: str, somebody: str, tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    for place in (nobody, somebody):
        told = ""
        try:
            border(TABLE[name].format(place=place), tmp_path / "work")
        except EdgemlError as error:
            told = str(error)
        told += caplog.text
        assert not any(secret in told for secret in SECRETS), told


def cameras(place: str) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for number, url in enumerate(TABLE.values()):
        location = url.format(place=place)
        made[f"http{number}"] = {"type": "http", "location": location}
        made[f"rtsp{number}"] = {"type": "rtsp", "location": location.replace("http:", "rtsp:")}
        made[f"file{number}"] = {"type": "file", "location": location}
        made[f"images{number}"] = {"type": "images", "location": location}
        made[f"device{number}"] = {"type": "device", "location": location}
        if shutil.which("gst-launch-1.0"):
            pipe = f'souphttpsrc location="{location}" user-id=r00t user-pw="s3c r3t" ! nosuchelement'
            made[f"gst{number}"] = {"type": "gstreamer", "location": pipe, "width": 4, "height": 4}
    for camera in made.values():
        camera |= {"stall_timeout_s": 0.5, "reconnect_min_s": 600, "reconnect_max_s": 600}
    return made


def test_cameras_say_nothing_of_it_nor_do_opencv_and_ffmpeg(nobody: str, tmp_path: Path) -> None:
    """Log, standard error of foreign code, health: all of what a process with many bad cameras says."""
    rings = tmp_path / "rings"
    rings.mkdir()
    config = {"ring_directory": str(rings), "cameras": cameras(nobody)}
    with Standalone("camera_capture", config, tmp_path / "w") as running:
        wanted = [f"subject=cameras.{name}" for name in config["cameras"]]
        eventually(lambda: all(text in running.log for text in wanted), 30, "a problem of each camera")
        assert running.stop() == 0
    told = running.log + json.dumps(running.lines)
    assert "source_failed" in told
    found = [line for line in told.splitlines() if any(secret in line for secret in SECRETS)]
    assert not found, found[0]
