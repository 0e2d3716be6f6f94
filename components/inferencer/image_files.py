"""Pictures and arrays in files of strangers."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edgeml import pictures
from edgeml.errors import PictureError
from edgeml.pictures import shown
from inferencer.sample import Array

IMAGES = {".jpg", ".jpeg", ".png"}
FORMATS = ("JPEG", "PNG")


def picture(path: Path, max_pixels: int, below: Sequence[Path] = ()) -> Array:
    """The image or array in a file, by its suffix. Raises PictureError; `below` is as in pictures.file_bytes."""
    kind = path.suffix.lower()
    if kind == ".npy":
        return array(pictures.file_bytes(path, below=below), shown(path), max_pixels)
    if kind in IMAGES:
        return pictures.load(path, max_pixels=max_pixels, formats=FORMATS, below=below)
    raise PictureError(f"{shown(path)}: expected one of {', '.join(sorted(IMAGES))}, .npy")


def array(data: bytes, name: str, max_pixels: int) -> Array:
    """An .npy file: an image (height, width, 3) or (height, width) of uint8, or a vector. Raises PictureError."""
    if data.startswith(b"PK"):
        raise PictureError(f"{name}: expected one array, found an archive of several")
    shape, order, dtype, begin = _npy_header(data, name)
    if dtype.kind not in "uif":
        raise PictureError(f"{name}: expected numbers, found {dtype}")
    is_picture = len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)
    if len(shape) != 1 and not (is_picture and dtype == np.uint8):
        expected = "(height, width, 3) or (height, width) of uint8, or (n,)"
        raise PictureError(f"{name}: shape {shape} of {dtype}, expected {expected}")
    count = math.prod(shape)
    if not 1 <= count <= max_pixels * 3:
        raise PictureError(f"{name}: {count} numbers, 1 to {max_pixels * 3} are allowed")
    if len(data) - begin < count * dtype.itemsize:
        raise PictureError(f"{name}: not an .npy file of numbers: cut off")
    return np.frombuffer(data, dtype, count, begin).reshape(shape, order=order).copy()


def _npy_header(data: bytes, name: str) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype[Any], int]:
    """(shape, order, dtype, where the numbers begin)."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(file)
    except Exception as error:  # a header is parsed as Python, and a wrong one fails in many ways
        raise PictureError(f"{name}: not an .npy file of numbers: {error}") from error
    if dtype.hasobject:
        raise PictureError(f"{name}: not an .npy file of numbers: it holds objects")
    if any(side < 0 for side in shape):
        raise PictureError(f"{name}: not an .npy file of numbers: shape {shape}")
    return shape, "F" if is_fortran else "C", dtype, file.tell()
