"""A camera in a page: CameraCapture, the Inferencer and the Monitor from their artifacts on a core of each kind."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from bundles.clips import face_clip
from integration.conftest import Start
from integration.test_monitor import page as address_of
from localdev.core import LocalCore
from monitor_support import QUIET
from support import eventually

PIPELINE = {
    "source": {"type": "camera", "camera": "front"},
    "backend": {"type": "onnx", "model": "FaceDetector", "max_side": 320},
}


@pytest.mark.parametrize("profile", ["java", "lite"])
def test_a_page_sees_each_frame_with_its_faces_and_stops_and_starts_the_camera_and_hides_what_is_private(
    profile: str, start: Start, tmp_path: Path
) -> None:
    rings = tmp_path / "rings"
    rings.mkdir()
    camera = {"type": "file", "location": str(face_clip()), "fps": 10, "width": 528, "height": 432}
    components = {
        "face_detector": {},
        "camera_capture": {"ring_directory": str(rings), "cameras": {"front": camera}},
        "inferencer": {"ring_directory": str(rings), "pipelines": {"faces": PIPELINE}},
        "monitor": {**QUIET, "ring_directory": str(rings), "report_s": 0},
    }
    published: dict[int, Any] = {}

    def found(topic: str, payload: bytes) -> None:
        result = json.loads(payload)
        published[result["source"]["frame_id"]] = result["results"]

    with start(components, profile=profile) as core:
        core.subscribe("edgeml/inference/faces", found)
        with opened(core) as page:
            page.send(json.dumps({"watch": {"front": {"max_width": 960}}}))
            header, jpeg = picture(page)
            frame = header["frame_id"]
            told = eventually(lambda: published.get(frame), 10, "the result of that frame")
            assert header["results"][0]["result"]["results"] == told
            clear = detail(jpeg, told[0]["box"])

            page.send(json.dumps({"command": {"camera": "front", "command": "stop"}}))
            assert told_of(page, lambda front: not front["live"] and front["commands"] == ["start"])
            page.send(json.dumps({"command": {"camera": "front", "command": "start"}}))
            assert told_of(page, lambda front: front["live"] and front["commands"] == ["stop"])

            private = {"pipelines": {"faces": {"privacy": {"labels": ["face"], "method": "blur"}}}}
            core.deploy(update_config={"edgeml.Inferencer": {"MERGE": private}}, timeout=60)
            assert told_of(page, lambda front: front["private"])
            for _ in range(3):  # those under way were taken before
                header, jpeg = picture(page)
            box = header["results"][0]["result"]["results"][0]["box"]
            assert detail(jpeg, box) < clear / 4


@contextmanager
def opened(core: LocalCore) -> Iterator[Connection]:
    """A page of who has signed in with the password in the component's folder."""
    address = address_of(core)
    password = (core.root / "work" / "edgeml.Monitor" / "password").read_text().strip()
    with httpx.Client(base_url=address, trust_env=False, timeout=10) as client:
        assert client.post("/sign-in", data={"password": password}).status_code == 303
        cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
    url = f"{address.replace('http', 'ws', 1)}ws"
    with connect(url, additional_headers={"Cookie": cookie}, proxy=None) as page:
        yield page


def picture(page: Connection) -> tuple[dict[str, Any], bytes]:
    """The next picture in which something was found: its header and its JPEG."""
    while True:
        message = page.recv(20)
        if isinstance(message, bytes):
            length = int.from_bytes(message[:4], "big")
            header = json.loads(message[4 : 4 + length])
            page.send(json.dumps({"shown": {"camera": "front", "frame_id": header["frame_id"]}}))
            if any(each["result"]["results"] for each in header["results"]):
                return header, message[4 + length :]


def told_of(page: Connection, wanted: Any) -> bool:
    """Whether the page hears of the camera what is wanted."""
    while True:
        message = page.recv(20)
        if isinstance(message, bytes):
            length = int.from_bytes(message[:4], "big")
            frame = json.loads(message[4 : 4 + length])["frame_id"]
            page.send(json.dumps({"shown": {"camera": "front", "frame_id": frame}}))
        elif (told := json.loads(message))["type"] == "state":
            front = [camera for camera in told["state"]["cameras"] if camera["name"] == "front"]
            if front and wanted(front[0]):
                return True


def detail(jpeg: bytes, box: list[float]) -> float:
    """How much the pixels of a box differ from their neighbours: a blurred face is smooth."""
    image: Any = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
    x, y, width, height = map(round, box)
    return float(np.abs(cv2.Laplacian(image[y : y + height, x : x + width], cv2.CV_64F)).mean())
