"""A device beside a Studio of its own: what it has done there."""

import threading
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from edgeml.frames import FrameWriter
from localdev.simulators.studio import FakeStudio
from support import Standalone, eventually

DEVICE = "02:aa:bb:cc:dd:ee"


class Frames:
    """A camera that sees one colour, (10, 20, 200) in BGR, until its block ends."""

    def __init__(self, directory: Path, name: str = "front", *, width: int = 640, height: int = 480) -> None:
        self._writer = FrameWriter(name, directory=directory, width=width, height=height)
        self._image = np.full((height, width, 3), (10, 20, 200), dtype=np.uint8)
        self._stop = threading.Event()

    def __enter__(self) -> "Frames":
        self._thread = threading.Thread(target=self._write)
        self._thread.start()
        return self

    def _write(self) -> None:
        with self._writer as writer:
            while not self._stop.wait(0.02):
                writer.write(self._image)

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()


Start = Callable[..., Standalone]


def connected(studio: FakeStudio) -> None:
    """Welcomed, registered and named."""
    eventually(lambda: studio.connected and DEVICE in studio.devices, what="a registered device")


def finished(studio: FakeStudio, count: int) -> None:
    eventually(lambda: studio.heard_keys().count("sampleFinished") == count, what=f"sample {count}")


def colour(jpeg: bytes) -> tuple[tuple[int, ...], list[int]]:
    """Size (height, width) and mean BGR."""
    image = cv2.imdecode(np.frombuffer(jpeg, dtype=np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image.shape[:2], [round(value / 10) * 10 for value in image.mean(axis=(0, 1))]
