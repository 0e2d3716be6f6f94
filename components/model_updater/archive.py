"""Unpacking an artifact that someone else made: plain files into one folder, bounded in number and bytes."""

import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from gzip import GzipFile
from pathlib import Path, PurePosixPath
from typing import IO, NoReturn, Protocol, cast

from edgeml.files import sync_folder
from model_updater.errors import UpdateError

MAX_FILES = 64
MAX_LIST = 64 * 1024  # bytes of what describes all members of a zip
MAX_HEADER, MAX_HEADERS = 4096, 3 * MAX_FILES  # bytes of what a tar says of a member besides its name; how many headers
CHUNK = 1 << 20
_ZIP_TAIL = 65_535 + 22 + 20  # the longest comment, and the records before it
GZIP_MAGIC, ZIP_MAGIC = b"\x1f\x8b", b"PK\x03\x04"
# ValueError and IndexError: numbers and names that zipfile and tarfile take to be right.
_DAMAGED = (
    *(zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, struct.error),
    *(NotImplementedError, RuntimeError, ValueError, IndexError, OverflowError),
)


class Readable(Protocol):
    def read(self, size: int = ..., /) -> bytes: ...


Member = tuple[str, int, IO[bytes]]  # name, declared bytes, content


def unpack(artifact: Path, folder: Path, max_bytes: int) -> None:
    """Unpack a zip or tar.gz into the new `folder`, durably.

    A bundle is flat: members are regular files without a path (a leading `./` is passed over). Raises UpdateError
    for anything else, for more than `max_bytes` or MAX_FILES, and for an archive that is damaged.
    """
    with artifact.open("rb") as file:
        magic = file.read(4)
    if magic != ZIP_MAGIC and not magic.startswith(GZIP_MAGIC):
        raise UpdateError("the artifact is neither a zip nor a tar.gz")
    folder.mkdir()
    left = max_bytes
    try:
        with _zip(artifact) if magic == ZIP_MAGIC else _tar(artifact, max_bytes) as members:
            for count, (name, size, content) in enumerate(members):
                if count >= MAX_FILES:
                    raise UpdateError(f"the artifact unpacks to more than {MAX_FILES} files")
                if size > left:
                    raise UpdateError(f"the artifact unpacks to more than {max_bytes} bytes, allowed or free")
                left -= _write(folder / _plain(name), content, left)
    except _DAMAGED as error:
        raise UpdateError(f"the artifact is damaged: {error}") from error
    sync_folder(folder)


def _plain(name: str) -> str:
    path = PurePosixPath(name)
    if len(path.parts) != 1 or path.is_absolute() or path.name in ("", "..") or "\\" in name or "\0" in name:
        raise UpdateError(f"the artifact holds {name[:200]!r}: only plain file names are allowed")
    return path.name


def _write(path: Path, content: Readable, limit: int) -> int:
    """Copies at most `limit` bytes: what a header declares and what follows need not agree."""
    written = 0
    try:
        with path.open("xb") as file:
            while chunk := content.read(CHUNK):
                written += len(chunk)
                if written > limit:
                    raise UpdateError(f"{path.name} unpacks to more than the {limit} bytes that are left")
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise UpdateError(f"the artifact holds {path.name} twice") from error
    return written


@contextmanager
def _zip(artifact: Path) -> Iterator[Iterator[Member]]:
    _check_directory(artifact)
    with zipfile.ZipFile(artifact) as archive:

        def members() -> Iterator[Member]:
            for info in archive.infolist():
                kind = (info.external_attr >> 16) & 0o170000
                if info.is_dir() or kind not in (0, 0o100000):
                    raise UpdateError(f"the artifact holds {info.filename[:200]!r}, which is no regular file")
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # inflated without a limit
                    raise UpdateError(f"{info.filename[:200]!r} is packed by method {info.compress_type}: use deflate")
                with archive.open(info) as content:
                    yield info.filename, info.file_size, content

        yield members()


def _check_directory(artifact: Path) -> None:
    """zipfile reads the whole list of members at once, however long it is: each costs several hundred bytes."""
    with artifact.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - _ZIP_TAIL))
        tail = file.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) < end + 22:
        raise zipfile.BadZipFile("it has no end")
    if tail.startswith(b"PK\x06\x07", max(0, end - 20)):  # zip64 keeps the size elsewhere
        raise UpdateError("the artifact is a zip of more than 2 GiB: offer it as tar.gz")
    (size,) = struct.unpack_from("<L", tail, end + 12)
    if size > MAX_LIST:
        raise UpdateError(f"the artifact's list of files has {size} bytes, {MAX_LIST} are allowed")


class _Header(tarfile.TarInfo):
    """Refuses what tarfile reads without a limit, before it does.

    A name of a megabyte costs a gigabyte to take apart, 64 kB of digits cost 20 s, and a map of holes has any length.
    """

    def _proc_member(self, tar: "_Tar") -> tarfile.TarInfo:
        if not self.isreg() and self.size > MAX_HEADER:
            raise UpdateError(f"the artifact has a header of {self.size} bytes, {MAX_HEADER} are allowed")
        tar.headers += 1
        if tar.headers > MAX_HEADERS:
            raise UpdateError(f"the artifact has more than {MAX_HEADERS} headers")
        member: tarfile.TarInfo = super()._proc_member(tar)  # type: ignore[misc]
        return member

    def _sparse(self, *_: object) -> NoReturn:
        raise UpdateError("the artifact holds a sparse file: pack it without --sparse")

    _proc_sparse = _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _sparse


class _Tar(tarfile.TarFile):
    headers = 0
    tarinfo = _Header


@contextmanager
def _tar(artifact: Path, max_bytes: int) -> Iterator[Iterator[Member]]:
    overhead = (MAX_FILES + 2) * 3 * tarfile.BLOCKSIZE + tarfile.RECORDSIZE
    with (
        GzipFile(artifact) as unzipped,
        _Tar.open(
            fileobj=cast(IO[bytes], _Bounded(unzipped, max_bytes + overhead)), mode="r|", bufsize=CHUNK
        ) as archive,
    ):

        def members() -> Iterator[Member]:
            for info in archive:
                if info.isdir() and PurePosixPath(info.name) == PurePosixPath("."):
                    continue
                content = archive.extractfile(info) if info.isreg() else None
                if content is None:
                    raise UpdateError(f"the artifact holds {info.name[:200]!r}, which is no regular file")
                yield info.name, info.size, content

        yield members()


class _Bounded:
    """Ends a stream that inflates without end, also where tarfile skips or reads a header of any length."""

    def __init__(self, stream: Readable, limit: int) -> None:
        self._stream, self._left = stream, limit

    def read(self, size: int) -> bytes:
        data = self._stream.read(min(size, self._left + 1))
        self._left -= len(data)
        if self._left < 0:
            raise UpdateError("the artifact unpacks to more bytes than are allowed")
        return data
