"""CameraCapture as a process with cameras of a real size, beside a bare loop that decodes the same file."""

import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

from benchmarks.harness import Row
from edgeml.frames import FrameReader
from motion_support import garage, man
from support import Standalone, eventually

FPS, FRAMES, WATCH_S = 15, 60, 6.0
CAMERAS = (1, 4)


def rows(bench: str, width: int, height: int, bar_ms: float) -> list[Row]:
    """`bar_ms`: CPU that a frame may cost; of 15 a second, 10 ms are 15 % of a core."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        clip = written(Path(folder) / "clip.mp4", width, height)
        return [row for count in CAMERAS for row in measured(bench, clip, Path(folder), count, bar_ms)]


def written(path: Path, width: int, height: int) -> Path:
    """The scene in MPEG-4."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (width, height))
    for frame in scene(width, height, FRAMES):
        writer.write(frame)
    writer.release()
    return path


def scene(width: int, height: int, frames: int) -> Iterator[Any]:
    """A man who moves before a still garage, with a sensor's noise."""
    noise = [np.random.default_rng(seed).normal(128, 4, (height, width, 3)).astype(np.uint8) for seed in range(4)]
    empty, faces = cv2.resize(garage(), (width, height)), man()
    for number in range(frames):
        frame = empty.copy()
        face = cv2.resize(faces[number], (width // 4, height // 3))
        left = number * (width - face.shape[1]) // frames
        frame[height // 2 : height // 2 + face.shape[0], left : left + face.shape[1]] = face
        yield cv2.addWeighted(frame, 1, noise[number % 4], 1, -128)


def decoded_ms(clip: Path) -> float:
    """CPU of a frame in a loop that does nothing but decode."""
    began = os.times()
    capture, count = cv2.VideoCapture(str(clip)), 0
    while capture.read()[0]:
        count += 1
    capture.release()
    ended = os.times()
    return (ended.user + ended.system - began.user - began.system) * 1e3 / count


def measured(bench: str, clip: Path, folder: Path, count: int, bar_ms: float) -> list[Row]:
    camera = {"type": "file", "location": str(clip), "fps": FPS, "motion": {}, "announce_every": 0}
    config = {"ring_directory": str(folder), "cameras": {f"c{number}": camera for number in range(count)}}
    bare = [decoded_ms(clip)]
    with tempfile.TemporaryDirectory() as work, Standalone("camera_capture", config, Path(work)) as running:
        process = psutil.Process(running.process.pid)
        readers = [FrameReader(name, directory=folder) for name in config["cameras"]]
        for reader in readers:
            eventually(lambda reader=reader: reader.read(1.0, copy=False) is not None, 30, "a frame")  # type: ignore[misc]
        first, cpu, began = newest(readers), spent(process), time.monotonic()
        time.sleep(WATCH_S)
        last, cpu, seconds = newest(readers), spent(process) - cpu, time.monotonic() - began
        memory = process.memory_info().rss
    bare.append(decoded_ms(clip))
    frames, limit = last - first, float(np.mean(bare))
    value, rate = cpu * 1e3 / max(frames, 1), frames / seconds
    words = f"{count} camera{'s' if count > 1 else ''} of {FPS} frames/s"
    return [
        Row(
            bench=bench, metric=f"{words}: CPU a frame", unit="ms", value=value, limit=limit, ratio=value / limit,
            bar=f"<= {bar_ms:g} ms", ok=value <= bar_ms,
        ),
        Row(
            bench=bench, metric=f"{words}: frames", unit="frames/s", value=rate, limit=float(count * FPS),
            ratio=rate / (count * FPS), bar=">= 0.95 x", ok=rate >= 0.95 * count * FPS,
        ),
        Row(
            bench=bench, metric=f"{words}: memory", unit="MB", value=memory / 1e6, limit=None, ratio=None,
            bar="shown", ok=True,
        ),
    ]  # fmt: skip


def newest(readers: list[FrameReader]) -> int:
    """The sum of the newest ids."""
    return sum(frame.frame_id for reader in readers if (frame := reader.read(1.0, copy=False)) is not None)


def spent(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
