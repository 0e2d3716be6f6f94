"""Pictures and events over plain HTTP, of the real process."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import cv2
import httpx
import numpy as np
import pytest

from edgeml.frames import FrameWriter
from monitor import streams
from monitor_support import QUIET, client_of
from support import Standalone, eventually


@pytest.fixture(scope="module")
def rings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rings")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, rings: Path) -> Iterator[Standalone]:
    with Standalone("monitor", {**QUIET, "ring_directory": str(rings)}, tmp_path_factory.mktemp("monitor")) as running:
        eventually(lambda: "address=http://" in running.log, what="the page's address")
        yield running


@pytest.fixture(scope="module", autouse=True)
def frames(rings: Path) -> Iterator[None]:
    """A camera `door` that gives one bright frame after the other."""
    done = threading.Event()

    def write() -> None:
        image = np.full((720, 1280, 3), 200, np.uint8)
        with FrameWriter("door", width=1280, height=720, directory=rings) as writer:
            while not done.wait(0.02):
                writer.write(image)

    writing = threading.Thread(target=write)
    writing.start()
    yield
    done.set()
    writing.join()


@pytest.fixture
def client(running: Standalone) -> Iterator[httpx.Client]:
    base = running.log.partition("address=")[2].split()[0]
    with client_of(base, limits=httpx.Limits(max_connections=None)) as client:
        work = Path(running.config_file).parent
        assert client.post("/sign-in", data={"password": (work / "password").read_text().strip()}).status_code == 303
        yield client


def test_a_picture_of_a_camera(client: httpx.Client) -> None:
    answer = client.get("/camera/door.jpg")
    image = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert image.shape == (540, 960, 3)
    assert abs(image.mean() - 200) < 3
    assert int(answer.headers["x-frame-id"]) > 0
    assert 0 <= time.time() - float(answer.headers["x-captured-at"]) < 10


def test_a_stream_of_pictures(client: httpx.Client) -> None:
    with client.stream("GET", "/camera/door.mjpeg") as answer:
        boundary = answer.headers["content-type"].partition("boundary=")[2]
        data = b""
        for piece in answer.iter_bytes():
            data += piece
            if data.count(b"--" + boundary.encode()) > 5:
                break
    parts = data.split(b"--" + boundary.encode() + b"\r\n")[1:5]
    ids = []
    for part in parts:
        head, _, body = part.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
        assert (
            cv2.imdecode(np.frombuffer(body[: int(headers["content-length"])], np.uint8), cv2.IMREAD_COLOR) is not None
        )
        ids.append(int(headers["x-frame-id"]))
    assert ids == sorted(set(ids))


def test_events_as_they_come(client: httpx.Client, running: Standalone) -> None:
    record = {"port": "mcu", "at": 1.0, "format": "raw", "record": "two\nlines \u2028 event: forged"}
    with client.stream("GET", "/api/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        pieces = answer.iter_bytes()
        assert next(pieces) == b": here\n\n"
        running.send("edgeml/serial/mcu/record", record)
        kind, data, *rest = next(pieces).split(b"\n")
    assert (kind, rest) == (b"event: record", [b"", b""])
    assert json.loads(data.removeprefix(b"data: "))["record"] == record["record"]


PATHS = ["/camera/door.mjpeg", "/camera/door.jpg", "/api/events"]


@pytest.mark.parametrize("path", PATHS)
def test_it_is_for_who_has_signed_in_and_for_no_other_page(client: httpx.Client, path: str) -> None:
    assert client.get(path, headers={"Origin": "http://evil.example"}).status_code == 403
    assert client.post(path).status_code == 405
    client.cookies.clear()
    assert client.get(path).status_code == 401


NOWHERE = ["none", "..%2fdoor", "%00", "x" * 300, "door.mjpeg", "%ff"]


@pytest.mark.parametrize("name", NOWHERE)
def test_no_camera_no_picture(client: httpx.Client, name: str) -> None:
    assert client.get(f"/camera/{name}.jpg").status_code == 404


def test_streams_are_bounded_and_free_again_when_their_clients_vanish(client: httpx.Client) -> None:
    with ExitStack() as stack:
        for _ in range(streams.MAX_STREAMS):
            assert stack.enter_context(client.stream("GET", "/camera/door.mjpeg")).status_code == 200
        assert client.get("/camera/door.jpg").status_code == 503
    eventually(lambda: client.get("/camera/door.jpg").status_code == 200, what="room for another one")


def test_a_stream_ends_with_its_session(client: httpx.Client) -> None:
    with client.stream("GET", "/camera/door.mjpeg") as answer:
        pieces = answer.iter_bytes()
        assert next(pieces)
        assert client.post("/sign-out").status_code == 303
        for _ in pieces:
            pass
