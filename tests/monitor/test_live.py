"""The WebSocket of a page, of the real process: its state, pictures of a real ring, results, records."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from edgeml.frames import FrameWriter
from live_support import MARKUP, RECORD, REPLY, REPORT, opened, pictured, result, said, socket_to, write
from monitor_support import QUIET
from support import Standalone, eventually

REPORT |= {"gauges": {}, "notes": {}, "last_error": None}


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
        Standalone("monitor", config, tmp_path / "work", fresh=True) as running,
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


def test_without_a_session_it_is_refused(tmp_path: Path) -> None:
    with Standalone("monitor", QUIET, tmp_path / "work") as running:
        eventually(lambda: "address=http://" in running.log, what="the page's address")
        with pytest.raises(InvalidStatus):
            connect(f"ws://{running.log.partition('address=http://')[2].split()[0]}ws", proxy=None)
