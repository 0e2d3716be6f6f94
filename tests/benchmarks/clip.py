"""A clip of a network camera, beside a plain copy of the same packets by PyAV, which is what `ffmpeg -c copy` does.

A minute of 1080p at 4 Mbit/s, from a server into a file in memory. The copy that sets the limit keeps ten seconds of
packets, as a pre-roll must; one that keeps nothing is shown, too.
"""

import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from benchmarks.harness import Row, interleave
from camera_capture import clip_file
from camera_capture.packets import PacketReader
from camera_capture.preroll import Preroll, Unit
from motion_support import garage

SECONDS, FPS, SIZE = 60, 25, (1920, 1080)
ROUNDS, BAR = 9, 1.3
ROOM, KEPT = 2**28, 5_000_000  # bytes: of the file, and of ten seconds


def run() -> list[Row]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name, served(Path(name)) as url:
        folder = Path(name)
        recorded(folder / "from.mkv")
        work: dict[str, Callable[[], float]] = {
            "clip": partial(_cpu_ms, partial(clip, url, folder)),
            "keeping": partial(_cpu_ms, partial(copy, url, folder, KEPT)),
            "bare": partial(_cpu_ms, partial(copy, url, folder, 0)),
        }
        figures = {kind: value / SECONDS for kind, value in interleave(work, ROUNDS).items()}
    rows = []
    for peer, words in (("keeping", "beside a copy that keeps ten seconds"), ("bare", "beside one that keeps nothing")):
        ratio = figures["clip"] / figures[peer]
        has_bar = peer == "keeping"
        rows.append(
            Row(
                bench="clip",
                metric=f"CPU of a second, {words}",
                unit="ms",
                value=figures["clip"],
                limit=figures[peer],
                ratio=ratio,
                bar=f"<= {BAR:g} x" if has_bar else "shown",
                ok=ratio <= BAR or not has_bar,
            )
        )
    return rows


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of the stream, at a server whose CPU is not ours."""
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "-d", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            port = server.stdout.readline().partition(" port ")[2].split()[0]
            yield f"http://127.0.0.1:{port}/from.mkv"
        finally:
            server.kill()


def recorded(path: Path) -> None:
    """Noise that costs 4 Mbit/s, and a key frame every two seconds."""
    picture, chance = cv2.resize(garage(), SIZE), np.random.default_rng(0)
    noisy = [cv2.add(picture, chance.integers(0, 30, picture.shape, np.uint8)) for _ in range(4)]
    frames = [av.VideoFrame.from_ndarray(np.asarray(one, np.uint8), format="bgr24") for one in noisy]
    frames = [one.reformat(format="yuv420p") for one in frames]
    options = {"preset": "ultrafast", "g": str(2 * FPS), "b": "4M", "maxrate": "4M", "bufsize": "4M"}
    with av.open(str(path), "w") as output:
        video: Any = output.add_stream("libx264", rate=FPS, options=options)
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        for number in range(SECONDS * FPS):
            frame = frames[number % len(frames)]
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            output.mux(video.encode(frame))
        output.mux(video.encode())


def clip(url: str, folder: Path) -> None:
    kept = Preroll(10, KEPT)
    reader = PacketReader(url, shown="bench", limit_s=10, packets=kept.tap()).open()
    for _ in range(FPS):
        reader.read()
    units = kept.since(0)
    tracks = list(dict.fromkeys(unit.track for unit in units))
    clip_file.copied(folder / "clip.mp4", tracks, _coming(reader, kept, units), ROOM)
    reader.close()


def _coming(reader: PacketReader, kept: Preroll, units: list[Unit]) -> Iterator[Unit]:
    while units:
        number = units[-1].number
        yield from units
        for _ in range(FPS // 5):  # as often as a clip looks for new ones
            reader.read()
        units = kept.after(number) or []


def copy(url: str, folder: Path, keep: int) -> None:
    kept: deque[Any] = deque()
    size = 0
    with (
        av.open(url, timeout=(10.0, 10.0)) as source,
        av.open(str(folder / "copy.mp4"), "w", options=clip_file.MUXER) as made,
    ):
        stream = made.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux(video=0):
            if packet.dts is None:
                continue
            kept.append(packet)
            size += packet.size
            while size > keep:
                size -= kept.popleft().size
            packet.stream = stream
            made.mux(packet)


def _cpu_ms(work: Callable[[], None]) -> float:
    began = time.process_time()
    work()
    return (time.process_time() - began) * 1e3
