"""Pictures and streams of them, as cameras send them over HTTP."""

import cv2
import numpy as np

from camera_capture.kinds.http import HttpPictures
from camera_support import source_of
from hostile_http import OK, RawServer


def jpeg(value: int, width: int = 32, height: int = 16) -> bytes:
    return cv2.imencode(".jpg", np.full((height, width, 3), value, np.uint8))[1].tobytes()


PICTURES = [jpeg(value) for value in (20, 60, 100, 140, 180)]
VALUES = [20, 60, 100, 140, 180]


def body(
    pieces: list[bytes], *, first: bytes = b"--x\r\n", between: bytes = b"\r\n--x\r\n", length: bool = True
) -> bytes:
    made = first
    for number, piece in enumerate(pieces):
        made += b"Content-Type: image/jpeg\r\n" + (b"Content-Length: %d\r\n" % len(piece) if length else b"")
        made += b"\r\n" + piece + (between if number < len(pieces) - 1 else b"\r\n--x--\r\n")
    return made


def multipart(boundary: str, data: bytes) -> bytes:
    return OK + f"Content-Type: multipart/x-mixed-replace; boundary={boundary}\r\n\r\n".encode() + data


def seen(source: HttpPictures, count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        assert source.grab()
        found.append(round(float(source.retrieve().mean())))
    return found


def camera(server: RawServer, path: str = "/v", user: str = "", **options: float) -> HttpPictures:
    url = server.url.replace("://", f"://{user}@") if user else server.url
    options = {"stall_timeout_s": 2, **options}
    source = source_of(type="http", location=f"{url}{path}", **options)
    assert isinstance(source, HttpPictures)
    return source
