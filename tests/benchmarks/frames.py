"""720p frames from one process to another through the frame ring, beside a bare memcpy of the same frame.

Throughput: the writer copies each frame in, the reader (policy "every") copies each one out; the reader grants a frame
for each one it has taken, slots - 1 ahead, so that none is lapped. So every frame is copied twice, on two cores.
Latency: one frame each 5 ms, from just before the writer's commit until the reader, woken by it, has its copy.
The limits are np.copyto of one frame into another that stays in the cache, in this process; and, for the latency, eight
bytes through a pipe followed by such a copy, which the same scheduler delays as much.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from benchmarks.harness import Row, interleave, percentile
from edgeml.frames import FrameReader

WIDTH, HEIGHT, SLOTS = 1280, 720, 4
FRAMES = 3_000
PACED_FRAMES, PAUSE_S = 400, 0.005
BAR_PER_S, BAR_MS = 2_000, 1.0
TIMEOUT_S = 10.0

# Writes one frame for each byte on stdin; ends with it.
_WRITER = """
import os, sys, time
import numpy as np
from edgeml.frames import FrameWriter
camera, width, height, slots, pause = sys.argv[1], *map(int, sys.argv[2:5]), float(sys.argv[5])
image = np.random.default_rng(1).integers(0, 255, (height, width, 3), np.uint8)
with FrameWriter(camera, width=width, height=height, slots=slots) as writer:
    while granted := len(os.read(0, 4096)):
        for _ in range(granted):
            time.sleep(pause) if pause else None
            with writer.slot() as slot:
                np.copyto(slot.image, image)
                slot.captured_ns = time.monotonic_ns()
"""


# Sends the time through stdout, for each byte on stdin.
_BARE = """
import os, sys, time
while granted := len(os.read(0, 4096)):
    for _ in range(granted):
        time.sleep(float(sys.argv[1]))
        os.write(1, time.monotonic_ns().to_bytes(8, "little"))
"""


class Stream:
    """A writer process and this process's reader of it."""

    def __init__(self, name: str, pause: float) -> None:
        camera = f"bench-{name}-{os.getpid()}"
        sizes = map(str, (WIDTH, HEIGHT, SLOTS, pause))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, camera, *sizes],
            stdin=subprocess.PIPE,
            bufsize=0,
        )
        self._reader = FrameReader(camera, policy="every")

    def grant(self, frames: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"+" * frames)

    def take(self) -> int:
        """Copy the next frame; nanoseconds since just before its commit."""
        frame = self._reader.read(TIMEOUT_S)
        now = time.monotonic_ns()
        assert frame is not None, "the writer has stopped"
        return now - frame.captured_ns

    def check(self) -> None:
        stats = self._reader.stats
        assert stats.lapped == stats.torn == 0, stats

    def close(self) -> None:
        self._process.communicate(timeout=TIMEOUT_S)


class Bare:
    """What no stream can beat: a wake-up through a pipe, and one copy."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _BARE, str(PAUSE_S)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        self._source = np.ones((HEIGHT, WIDTH, 3), np.uint8)
        self._target = np.zeros_like(self._source)

    def grant(self, frames: int) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(b"+" * frames)

    def take(self) -> int:
        assert self._process.stdout is not None
        sent = int.from_bytes(self._process.stdout.read(8) or b"", "little")
        np.copyto(self._target, self._source)
        return time.monotonic_ns() - sent

    def close(self) -> None:
        self._process.communicate(timeout=TIMEOUT_S)


@contextmanager
def streams() -> Iterator[tuple[Stream, Stream, Bare]]:
    flat_out, paced, bare = Stream("flat-out", 0), Stream("paced", PAUSE_S), Bare()
    try:
        yield flat_out, paced, bare
        flat_out.check()
        paced.check()
    finally:
        for stream in (flat_out, paced, bare):
            stream.close()


def memcpy() -> float:
    """Frames per second."""
    source = np.ones((HEIGHT, WIDTH, 3), np.uint8)
    target = np.zeros_like(source)
    began = time.perf_counter()
    for _ in range(FRAMES):
        np.copyto(target, source)
    return FRAMES / (time.perf_counter() - began)


def throughput(stream: Stream) -> float:
    """Frames per second, every one received."""
    ahead = SLOTS - 1
    stream.grant(ahead)
    stream.take()
    began = time.perf_counter()
    for _ in range(FRAMES):
        stream.grant(1)
        stream.take()
    rate = FRAMES / (time.perf_counter() - began)
    for _ in range(ahead - 1):
        stream.take()
    return rate


def latency_p99(stream: Stream | Bare) -> float:
    """Milliseconds."""
    ages = []
    for _ in range(PACED_FRAMES):
        stream.grant(1)
        ages.append(stream.take() / 1e6)
    return percentile(ages, 99)


def run() -> list[Row]:
    with streams() as (flat_out, paced, bare):
        latency_p99(paced)  # warm: page tables, allocator
        figures = interleave(
            {
                "memcpy": memcpy,
                "throughput": lambda: throughput(flat_out),
                "latency": lambda: latency_p99(paced),
                "bare": lambda: latency_p99(bare),
            },
            rounds=3,
        )
    rate, limit = figures["throughput"], figures["memcpy"]
    p99, bare_p99 = figures["latency"], figures["bare"]
    return [
        Row(
            bench="frames",
            metric="throughput",
            unit="frames/s",
            value=rate,
            limit=limit,
            ratio=rate / limit,
            bar=f">= {BAR_PER_S:,} frames/s",
            ok=rate >= BAR_PER_S,
        ),
        Row(
            bench="frames",
            metric="latency p99",
            unit="ms",
            value=p99,
            limit=bare_p99,
            ratio=p99 / bare_p99,
            bar=f"< {BAR_MS:g} ms",
            ok=p99 < BAR_MS,
        ),
    ]
