"""Pictures of strangers: files read once and safely, their bytes decoded within limits. OpenCV never sees a path.

The size is told from the bytes first (edgeml._picture_header); the decoder has a limit of its own behind that, set in
edgeml/__init__.py before OpenCV is loaded. Whatever is wrong with a file or a picture is a PictureError that says so.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml import _picture_header
from edgeml.errors import PictureError

Image = NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "BMP", "WebP")
MAX_PIXELS = 50_000_000
MAX_BYTES = 256 << 20
_LUMA = np.array((0.114, 0.587, 0.299), np.float32)  # of BGR
_CHUNK = 1 << 20
_FILLER = bytes(range(1, 65))  # as more data of a JPEG's last scan it means something, whatever the tables


def shown(path: Path | str) -> str:
    """A path as text that can be logged and sent: names of files are bytes, and not all of them are UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")


def load(
    path: Path, *, max_pixels: int = MAX_PIXELS, formats: Sequence[str] = FORMATS, below: Sequence[Path] = ()
) -> Image:
    """The picture in a file, as (height, width, 3) BGR, turned as its EXIF says. Raises PictureError."""
    return decoded(file_bytes(path, below=below), shown(path), max_pixels=max_pixels, formats=formats)


def file_bytes(path: Path, *, max_bytes: int = MAX_BYTES, below: Sequence[Path] = ()) -> bytes:
    """All bytes of a regular file. Raises PictureError.

    With `below`, `path` and these folders must be resolved already, and the file that is really opened must lie in
    one of them: a link put in the way after the check leads nowhere.
    """
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC | (os.O_NOFOLLOW if below else 0))
    except (OSError, ValueError) as error:
        raise PictureError(f"{shown(path)}: {_reason(error)}") from error
    try:
        _check(path, handle, below)
        # Only now, and by the handle: opening a pipe or a device can do things already.
        descriptor = os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return _all(descriptor, path, max_bytes)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise PictureError(f"{shown(path)}: {_reason(error)}") from error
    finally:
        os.close(handle)


def decoded(data: bytes, name: str, *, max_pixels: int = MAX_PIXELS, formats: Sequence[str] = FORMATS) -> Image:
    """A picture's bytes as (height, width, 3) BGR. Raises PictureError; `name` says in it which picture it was."""
    try:
        header = _picture_header.read(data)
    except _picture_header.NoSizeError as error:
        raise PictureError(f"{name}: not a {_listed(formats)} image: {error}") from error
    except _picture_header.HeaderError as error:
        raise PictureError(f"{name}: not a readable image: {error}") from error
    if header is None or header.format not in formats:
        found = header.format if header else _picture_header.name_of(data)
        raise PictureError(f"{name}: not a {_listed(formats)} image" + (f" but {found}" if found else ""))
    if not header.width or not header.height:
        raise PictureError(f"{name}: not a readable image: {header.width}x{header.height} pixels")
    if header.width * header.height > max_pixels:
        raise PictureError(f"{name}: {header.width}x{header.height} pixels, {max_pixels} pixels are allowed")
    image = _decoded(data, name)
    # The later scans of a picture only refine it: nothing is grey where one of them was cut.
    is_doubtful = header.end and (header.scans > 1 or _may_be_cut(image))
    if is_doubtful and not np.array_equal(image, _decoded(_longer(data, header.end), name)):
        raise PictureError(f"{name}: not a readable image: cut off in the middle")
    return image


def _decoded(data: bytes, name: str) -> Image:
    import cv2

    try:
        image: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except (cv2.error, MemoryError) as error:
        raise PictureError(f"{name}: not a readable image: {_reason(error)}") from error
    if image is None or image.size == 0:
        raise PictureError(f"{name}: not a readable image")
    return image  # type: ignore[no-any-return]


def _may_be_cut(image: Image) -> bool:
    """Whether the block in a corner is libjpeg's grey: what it makes of blocks that have no data.

    Few whole pictures have it, and only those are decoded twice. Luma is exact, colours blend with a neighbour's.
    """
    height, width = image.shape[:2]
    side = min((height - 1) % 8, (width - 1) % 8) + 1  # what is to be seen of the last block, whichever way it lies
    for rows in (slice(side), slice(-side, None)):
        for columns in (slice(side), slice(-side, None)):
            block: Any = image[rows, columns]
            if abs(block.item(0) - 128) >= 12:  # one number of one pixel tells most apart
                continue
            block = block.astype(np.float32) - 128
            if abs(block).max() < 12 and abs(block @ _LUMA).max() < 1.6:
                return True
    return False


def _longer(data: bytes, end: int) -> bytes:
    """With more data before its end a JPEG that is whole decodes as before, and one that was cut does not."""
    return data[:end] + _FILLER + data[end:]


def _check(path: Path, handle: int, below: Sequence[Path]) -> None:
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        kind = "is a folder" if stat.S_ISDIR(mode) else "is a link" if stat.S_ISLNK(mode) else "is no regular file"
        raise PictureError(f"{shown(path)}: {kind}")
    if below:
        real = Path(f"/proc/self/fd/{handle}").readlink()
        if not any(real.is_relative_to(folder) for folder in below):
            raise PictureError(f"{shown(path)} is not below one of the allowed folders")


def _all(descriptor: int, path: Path, max_bytes: int) -> bytes:
    pieces: list[bytes] = []
    left = max_bytes + 1
    while left > 0 and (piece := os.read(descriptor, min(left, _CHUNK))):
        pieces.append(piece)
        left -= len(piece)
    if left <= 0:
        raise PictureError(f"{shown(path)}: more than {max_bytes} bytes")
    return b"".join(pieces)


def _listed(formats: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(formats[:-1]), formats[-1]]))


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split())[:200] or type(error).__name__
