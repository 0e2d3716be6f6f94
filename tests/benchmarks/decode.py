"""CPU of a decoded frame, from a file of H.264 to BGR in memory, by CameraCapture's source beside OpenCV's reader.

Both look through the whole clip, at their own number of threads, in turns.
"""

import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2

from benchmarks.capture_rig import scene
from benchmarks.harness import Row, interleave
from camera_support import source_of

FRAMES, ROUNDS = 60, 7
NOISE = 1.03  # of a ratio, between two runs of the same


def run() -> list[Row]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        sizes = (("720p", 1280, 720), ("1080p", 1920, 1080))
        return [row for name, *size in sizes for row in _measured(name, _clip(Path(folder) / f"{name}.mp4", *size))]


def _clip(path: Path, width: int, height: int) -> str:
    with av.open(str(path), "w") as output:
        video: Any = output.add_stream("libx264", 15, options={"preset": "veryfast", "g": "30"})
        video.width, video.height, video.pix_fmt, video.bit_rate = width, height, "yuv420p", 4_000_000
        for picture in scene(width, height, FRAMES):
            output.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        output.mux(video.encode())
    return str(path)


def _measured(name: str, clip: str) -> list[Row]:
    figures = interleave({"ours": partial(_cpu_ms, _ours, clip), "opencv": partial(_cpu_ms, _opencv, clip)}, ROUNDS)
    value, limit = figures["ours"], figures["opencv"]
    return [
        Row(
            bench="decode", metric=f"CPU of a decoded {name} frame", unit="ms", value=value, limit=limit,
            ratio=value / limit, bar=f"<= {NOISE:g} x", ok=value <= NOISE * limit,
        )
    ]  # fmt: skip


def _cpu_ms(read: Callable[[str], int], clip: str) -> float:
    began = os.times()
    count = read(clip)
    ended = os.times()
    return (ended.user + ended.system - began.user - began.system) * 1e3 / count


def _ours(clip: str) -> int:
    source, count = source_of(type="file", location=clip, loop=False), 0
    while source.grab():
        source.retrieve()
        count += 1
    source.close()
    return count


def _opencv(clip: str) -> int:
    capture, count = cv2.VideoCapture(clip, cv2.CAP_FFMPEG), 0
    while capture.read()[0]:
        count += 1
    capture.release()
    return count
