"""A page on its WebSocket, and a camera that it watches."""

import json
import socket
import time
from typing import Any

import numpy as np
from websockets.sync.client import connect
from websockets.sync.connection import Connection

from edgeml.frames import FrameWriter

REPORT = {"component": "x", "version": "1", "at": 1, "uptime_s": 1, "counters": {}, "rates": {}, "latency_ms": {}}
MARKUP = '<img src=x onerror="alert(1)">\u2028"\\'


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


def socket_to(base: str) -> socket.socket:
    host, _, port = base.partition(":")
    return socket.create_connection((host, int(port)), timeout=10)
