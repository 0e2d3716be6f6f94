"""The shared memory of an .eim model: made by the model, opened here by its name, cleaned up after a kill."""

import mmap
import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edge_impulse_runner.protocol import SharedMemory

FOLDER = Path("/dev/shm")  # noqa: S108  (where shm_open puts them)
_NAME = re.compile(r"/?[A-Za-z0-9_-][A-Za-z0-9._-]{0,200}")


def open_block(block: SharedMemory) -> NDArray[np.float32]:
    """The block's floats, mapped for reading and writing as long as the array lives.

    Raises OSError when it is not there, not ours, or too small; ValueError for what the protocol does not allow.
    """
    if block.type != "float32" or block.elements < 1:
        raise ValueError(f"shared memory {block.name}: {block.elements} elements of type {block.type}")
    descriptor = os.open(_path(block.name), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        size = block.elements * 4
        if os.fstat(descriptor).st_size < size:
            raise ValueError(f"shared memory {block.name}: smaller than its {block.elements} elements")
        return np.frombuffer(mmap.mmap(descriptor, size), dtype="<f4", count=block.elements)
    finally:
        os.close(descriptor)


def remove_block(name: str) -> None:
    """What a killed model leaves behind; one that ended by itself has removed it."""
    _path(name).unlink(missing_ok=True)


def _path(name: str) -> Path:
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"shared memory {name!r}: not a name")
    return FOLDER / name.lstrip("/")
