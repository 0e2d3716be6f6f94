"""The shared memory of an .eim model: made by the model, opened here by its name, cleaned up after a kill."""

import os
import re
import stat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_impulse_runner.protocol import SharedMemory

FOLDER = Path("/dev/shm")  # noqa: S108  (where shm_open puts them)
_NAME = re.compile(r"/?[A-Za-z0-9_-][A-Za-z0-9._-]{0,200}")


MAX_ELEMENTS = 16 << 20


class Block:
    """A block's floats, read and written as a file: a mapping would end us by SIGBUS when the model cuts it short.

    Raises OSError when it is not there or not ours; ValueError for what the protocol does not allow.
    """

    def __init__(self, block: SharedMemory) -> None:
        if block.type != "float32" or not 1 <= block.elements <= MAX_ELEMENTS:
            raise ValueError(f"shared memory {block.name}: {block.elements} elements of type {block.type}")
        self.name, self.size = block.name, block.elements
        self._descriptor = os.open(path(block.name), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            state = os.fstat(self._descriptor)
            if not stat.S_ISREG(state.st_mode) or state.st_size < self.size * 4:
                raise ValueError(f"shared memory {block.name}: no block of its {block.elements} elements")
        except BaseException:
            self.close()
            raise

    def write(self, values: NDArray[np.float32]) -> None:
        """To its beginning."""
        data = values.astype("<f4", copy=False).tobytes()
        if os.pwrite(self._descriptor, data, 0) != len(data):
            raise OSError(f"shared memory {self.name}: cut short")

    def read(self) -> list[float]:
        data = os.pread(self._descriptor, self.size * 4, 0)
        if len(data) != self.size * 4:
            raise OSError(f"shared memory {self.name}: cut short")
        found: list[float] = np.frombuffer(data, dtype="<f4").tolist()
        return found

    def close(self) -> None:
        """Once; the descriptor may be another's afterwards."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def remove_block(name: str) -> None:
    """What a killed model leaves behind; one that ended by itself has removed it."""
    path(name).unlink(missing_ok=True)


def path(name: str) -> Path:
    """Raises ValueError."""
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"shared memory {name!r}: not a name")
    return FOLDER / name.lstrip("/")
