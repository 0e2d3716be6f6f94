"""Writers and readers of frame rings as processes of their own, and frames whose content tells their id."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from edgeml.frames import Frame, FrameReader, FrameWriter
from forked import popen

# Does what it is told by stdin; every frame is filled with its id, so that a mix of two is seen.
WRITER = """
import sys, time
from pathlib import Path
from edgeml.frames import FrameWriter
writer = FrameWriter("cam", width=640, height=480, slots=int(sys.argv[2]), directory=Path(sys.argv[1]))
def write():
    with writer.slot() as slot:
        slot.image[:] = slot.frame_id % 251
print("ready", flush=True)
for line in sys.stdin:
    verb, *numbers = line.split()
    if verb == "write":
        for _ in range(int(numbers[0])): write()
    elif verb == "resize":
        writer.resize(width=int(numbers[0]), height=int(numbers[1]))
    elif verb == "half":
        with writer.slot() as slot:
            slot.image[:240] = slot.frame_id % 251
            print("done", flush=True)
            time.sleep(60)
    elif verb == "flood":
        print("done", flush=True)
        while True: write()
    elif verb == "close":
        writer.close()
    print("done", flush=True)
"""

READER = """
import sys
from pathlib import Path
from edgeml.frames import FrameReader
with FrameReader("cam", directory=Path(sys.argv[1])) as reader:
    while True:
        if reader.read(1.0, copy=False):
            print("got", flush=True)
"""


class Child:
    def __init__(self, code: str, *arguments: object) -> None:
        self.process = popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hear(self, word: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == word + "\n"

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        self.hear("done")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate(timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


class Writer(Child):
    """A writer of 640x480 frames to camera `cam` that has made its ring."""

    def __init__(self, directory: Path, slots: int = 4) -> None:
        super().__init__(WRITER, directory, slots)
        self.hear("ready")


def small(tmp_path: Path, **options: Any) -> FrameWriter:
    return FrameWriter("cam", **{"width": 8, "height": 4, "directory": tmp_path, **options})


def image(value: int, width: int = 8, height: int = 4) -> NDArray[np.uint8]:
    return np.full((height, width, 3), value, np.uint8)


def is_pure(frame: Frame) -> bool:
    return bool((frame.image == frame.frame_id % 251).all())


def drain(reader: FrameReader) -> list[Frame]:
    drained = []
    while (frame := reader.read(0)) is not None:
        drained.append(frame)
    return drained


def spent(read: Callable[[], object]) -> float:
    """Seconds of CPU that this thread spends on `read`."""
    began = time.thread_time()
    read()
    return time.thread_time() - began
