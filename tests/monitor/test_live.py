"""The WebSocket of a page, of the real process: its state, pictures of a real ring, results, records."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from edgeml.frames import FrameWriter
from monitor import live
from monitor_support import QUIET
from support import Standalone, eventually

REPORT = {"component": "x", "version": "1", "at": 1, "uptime_s": 1, "counters": {}, "rates": {}, "latency_ms": {}}
REPORT |= {"gauges": {}, "notes": {}, "last_error": None}
MARKUP = '<img src=x onerror="alert(1)">\u2028"\\'


@pytest.fixture(scope="module")
def rings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rings")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, rings: Path) -> Iterator[Standalone]:
    config = {**QUIET, "auth": "off", "ring_directory": str(rings), "fps": 50}
    with Standalone("monitor", config, tmp_path_factory.mktemp("monitor")) as running:
        eventually(lambda: "address=http://" in running.log, what="the page's address")
        yield running


@pytest.fixture
def base(running: Standalone) -> str:
    return running.log.partition("address=http://")[2].split()[0].rstrip("/")


@pytest.fixture
def camera(rings: Path) -> Iterator[FrameWriter]:
    with FrameWriter("door", width=1280, height=720, directory=rings) as writer:
        yield writer


def opened(base: str, **options: Any) -> Connection:
    return connect(f"ws://{base}/ws", origin=f"http://{base}", proxy=None, **options)  # type: ignore[arg-type]


def said(page: Connection, kind: str, timeout: float = 10) -> Any:
    """The next message of a kind, text or a picture's header and JPEG."""
    deadline = time.monotonic() + timeout
    while True:
        message = page.recv(max(0.0, deadline - time.monotonic()))
        if isinstance(message, bytes):
            if kind == "picture":
                return parted(message)
        elif (told := json.loads(message))["type"] == kind:
            return told


def parted(message: bytes) -> tuple[dict[str, Any], bytes]:
    length = int.from_bytes(message[:4], "big")
    return json.loads(message[4 : 4 + length]), message[4 + length :]


def write(camera: FrameWriter, value: int = 0) -> int:
    return camera.write(np.full((720, 1280, 3), value, np.uint8))


def pictured(page: Connection, camera: FrameWriter, name: str = "door", width: int = 960) -> dict[str, Any]:
    """Watch until a picture has come; the header of the last one."""
    page.send(json.dumps({"watch": {name: {"max_width": width}}}))
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        write(camera)
        try:
            header: dict[str, Any] = said(page, "picture", 0.1)[0]
        except TimeoutError:
            continue
        page.send(json.dumps({"shown": {"camera": name, "frame_id": header["frame_id"]}}))
        return header
    raise AssertionError("no picture came")


def test_the_state_comes_at_once_and_as_it_changes(running: Standalone, base: str) -> None:
    with opened(base) as page:
        assert said(page, "state")["state"]["components"] == []
        running.send("edgeml/health/X", REPORT)
        assert said(page, "state")["state"]["components"][0]["name"] == "edgeml.X"


def libraries(running: Standalone) -> str:
    return Path(f"/proc/{running.process.pid}/maps").read_text()


def test_opencv_comes_when_somebody_watches_and_not_before(tmp_path: Path) -> None:
    config = {**QUIET, "auth": "off", "ring_directory": str(tmp_path)}
    with (
        Standalone("monitor", config, tmp_path / "work") as running,
        FrameWriter("door", width=1280, height=720, directory=tmp_path) as camera,
    ):
        eventually(lambda: "address=http://" in running.log, what="the page's address")
        with opened(running.log.partition("address=http://")[2].split()[0].rstrip("/")) as page:
            write(camera)
            assert eventually(lambda: said(page, "state")["state"]["cameras"])[0]["name"] == "door"
            assert "cv2" not in libraries(running)
            assert "numpy" not in libraries(running)
            pictured(page, camera)
            assert "cv2" in libraries(running)


@pytest.mark.parametrize(
    ("width", "shown"), [(960, (960, 540)), (100, (320, 180)), (10**6, (960, 540)), (0, (320, 180))]
)
def test_a_picture_is_the_frame_it_says_and_tells_when_it_was_captured(
    base: str, camera: FrameWriter, width: int, shown: tuple[int, int]
) -> None:
    with opened(base) as page:
        pictured(page, camera, width=width)
        first = write(camera, 200)
        header: dict[str, Any] = {"frame_id": 0}
        while header["frame_id"] < first:
            write(camera, 200)
            with suppress(TimeoutError):
                header, jpeg = said(page, "picture", 0.1)
                page.send(json.dumps({"shown": {"camera": "door", "frame_id": header["frame_id"]}}))
        image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert image is not None
        assert image.shape[1::-1] == (header["width"], header["height"]) == shown
        assert abs(image.mean() - 200) < 3
        assert (header["source_width"], header["source_height"]) == (1280, 720)
        assert 0 <= header["sent_at"] - header["captured_at"] < 5


def result(camera: str = "door", **source: Any) -> dict[str, Any]:
    return {
        "pipeline": "p",
        "model": {"name": MARKUP, "version": "1"},
        "source": {"camera": camera, **source},
        "task": "detection",
        "results": [{"label": MARKUP, "score": 0.5, "box": [1, 2, 3, 4]}],
        "latency_ms": {"queue": 1, "preprocess": 1, "inference": 1, "postprocess": 1},
        "device": "d",
    }


RECORD = {"port": "mcu", "at": 1.0, "format": "raw", "record": MARKUP}
REPLY = {"camera": "door", "command": "stop", "ok": False, "error": MARKUP}


def test_what_is_followed_comes_with_its_history_and_markup_stays_text(running: Standalone, base: str) -> None:
    running.send("edgeml/inference/p", result())
    running.send("edgeml/serial/mcu/record", RECORD)
    with opened(base) as page:
        page.send(json.dumps({"follow": ["p"], "records": True}))
        assert said(page, "result")["result"]["results"][0]["label"] == MARKUP
        assert said(page, "record")["record"] == MARKUP
        running.send("edgeml/event/p", {"event": "appeared", "id": MARKUP, "pipeline": "p", "device": "d", "at": 1})
        assert said(page, "event")["event"]["id"] == MARKUP
        running.send("edgeml/inference/other", result())
        running.send("edgeml/serial/mcu/record", RECORD | {"record": "last"})
        assert said(page, "record")["record"] == "last"
        page.send(json.dumps({"follow": [], "records": False}))
        assert said(page, "state")["state"]["pipelines"]


def test_the_answer_to_a_command_comes_to_who_watches_that_camera(
    running: Standalone, base: str, camera: FrameWriter
) -> None:
    with opened(base) as page:
        pictured(page, camera)
        running.send("edgeml/camera/door/reply", REPLY)
        assert said(page, "reply")["reply"]["error"] == MARKUP


def test_who_has_not_signed_in_stops_no_camera(running: Standalone, base: str, camera: FrameWriter) -> None:
    with opened(base) as page:
        write(camera)
        page.send(json.dumps({"command": {"camera": "door", "command": "stop"}}))
        pictured(page, camera)
        assert not [line for line in running.lines if line["topic"].endswith("/command")]


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


ODD = ["x" * 9000, b"\x00", "", "x", "[]", '{"watch": 5}', '{"watch": {"a": {"max_width": "x"}}}', '{"command": {}}']
ODD += [
    '{"command": {"camera": "door", "command": "reboot"}}',
    '{"follow": [1]}',
    "[" * 5000,
    '{"shown": null, "x": NaN}',
]


@pytest.mark.parametrize("message", ODD)
def test_what_no_page_says_ends_that_page_alone(base: str, message: str | bytes) -> None:
    with opened(base) as page, opened(base) as other:
        page.send(message)
        with pytest.raises(ConnectionClosed):
            for _ in range(5):
                page.recv(10)
        assert other.recv(10)


ODD_WISHES: dict[str, Any] = {
    "no cameras": {"watch": {"../x": {}, "": {}, "x" * 300: {}}},
    "no pipelines": {"follow": ["x" * 300, ""]},
    "no picture": {"shown": {"camera": "no", "frame_id": -5}},
    "many cameras": {"watch": {f"c{number}": {} for number in range(100)}},
    "something else": {"unknown": [1]},
}


@pytest.mark.parametrize("case", ODD_WISHES)
def test_odd_wishes_do_no_harm(base: str, camera: FrameWriter, case: str) -> None:
    with opened(base) as page:
        page.send(json.dumps(ODD_WISHES[case]))
        assert pictured(page, camera)


def test_a_page_that_shows_nothing_gets_two_pictures_and_the_newest_after_its_receipt(
    base: str, camera: FrameWriter
) -> None:
    with opened(base) as page, opened(base) as other:
        pictured(other, camera)
        page.send(json.dumps({"watch": {"door": {"max_width": 960}}}))
        got: list[int] = []
        for _ in range(40):
            last = write(camera)
            time.sleep(0.02)
            try:
                got.append(said(page, "picture", 0)[0]["frame_id"])
            except TimeoutError:
                continue
        assert len(got) == live.UNSHOWN
        page.send(json.dumps({"shown": {"camera": "door", "frame_id": got[0]}}))
        assert said(page, "picture")[0]["frame_id"] >= last - 3


def memory_mb(running: Standalone) -> float:
    status = Path(f"/proc/{running.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1e3


def test_pages_that_stall_or_vanish_cost_others_nothing_and_are_let_go(
    running: Standalone, base: str, camera: FrameWriter
) -> None:
    """Nine that read nothing, or have gone without a word, beside one that sees every picture still."""

    async def scene() -> None:
        stalled = []
        for _ in range(9):
            page = await websockets.connect(f"ws://{base}/ws", proxy=None, max_queue=1, ping_interval=None)
            await page.send(json.dumps({"watch": {"door": {"max_width": 960}}, "follow": ["p"], "records": True}))
            page.transport.pause_reading()
            stalled.append(page)
        async with websockets.connect(f"ws://{base}/ws", proxy=None) as good:
            await good.send(json.dumps({"watch": {"door": {"max_width": 960}}}))
            noise = np.random.default_rng(1).integers(0, 256, (720, 1280, 3), np.uint8)
            seen: set[int] = set()
            before = memory_mb(running)
            for _ in range(100):
                camera.write(noise)
                running.send("edgeml/serial/mcu/record", RECORD | {"record": "x" * 6000})
                with suppress(TimeoutError):
                    while True:
                        message = await asyncio.wait_for(good.recv(), 0.03)
                        if isinstance(message, bytes):
                            seen.add(parted(message)[0]["frame_id"])
                            await good.send(json.dumps({"shown": {"camera": "door", "frame_id": 0}}))
            assert len(seen) > 30
            assert memory_mb(running) < before + 60
        for page in stalled:
            page.transport.abort()

    asyncio.run(scene())
    with opened(base) as page:
        assert pictured(page, camera)


def test_pages_are_bounded(base: str) -> None:
    pages = [connect(f"ws://{base}/ws", proxy=None) for _ in range(live.MAX_PAGES)]
    with pytest.raises(InvalidStatus):
        connect(f"ws://{base}/ws", proxy=None)
    for page in pages:
        page.close()


def test_without_a_session_it_is_refused(tmp_path: Path) -> None:
    with Standalone("monitor", QUIET, tmp_path / "work") as running:
        eventually(lambda: "address=http://" in running.log, what="the page's address")
        with pytest.raises(InvalidStatus):
            connect(f"ws://{running.log.partition('address=http://')[2].split()[0]}ws", proxy=None)
