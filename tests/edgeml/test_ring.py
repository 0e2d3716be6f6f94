"""The file of a frame ring: who may make it, and what is refused instead of read."""

import fcntl
import os
import random
import resource
import stat
import struct
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeml._ring_header import HEADER
from edgeml.errors import FrameError, RingNotFoundError
from edgeml.frames import FrameReader, FrameWriter
from frame_support import Writer, image, small


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    with Writer(tmp_path) as child:
        yield child


def test_a_live_writer_is_not_pushed_aside(writer: Writer, tmp_path: Path) -> None:
    with pytest.raises(FrameError, match=f"process {writer.process.pid}, which is alive"):
        small(tmp_path)
    reader = FrameReader("cam", directory=tmp_path)
    writer.tell("write 1")
    assert reader.read(0) is not None
    assert [path.name for path in tmp_path.iterdir()] == ["edgeml-cam"]


def test_of_writers_that_start_at_once_one_wins(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)
    won: list[FrameWriter] = []
    lost: list[FrameError] = []

    def start() -> None:
        barrier.wait(10)
        try:
            won.append(small(tmp_path))
        except FrameError as error:
            lost.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert (len(won), len(lost)) == (1, 7)
    won[0].close()
    assert list(tmp_path.iterdir()) == []


def test_a_ring_is_not_built_where_another_writer_builds(tmp_path: Path) -> None:
    building = tmp_path / ".edgeml-cam.new"
    with building.open("wb") as file:
        building.chmod(0o600)
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(FrameError, match="another writer keeps"):
            small(tmp_path)
    with small(tmp_path):
        assert not building.exists()


def test_leftovers_of_killed_writers_are_replaced_and_nothing_stays(writer: Writer, tmp_path: Path) -> None:
    writer.kill()
    (tmp_path / ".edgeml-cam.new").write_bytes(b"left by one that was killed while it made its ring")
    (tmp_path / ".edgeml-cam.new").chmod(0o600)
    with small(tmp_path) as successor:
        assert successor.write(image(1)) == 1
        assert stat.S_IMODE(successor.path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == []


def test_close_removes_only_its_own_ring(tmp_path: Path) -> None:
    writer = small(tmp_path)
    writer.path.unlink()
    writer.path.write_bytes(b"another's")
    writer.close()
    assert writer.path.read_bytes() == b"another's"


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "..", ".hidden", "x\0", "x" * 65, "é"])
def test_a_camera_name_cannot_leave_the_directory(tmp_path: Path, name: str) -> None:
    with pytest.raises(FrameError, match="camera name"):
        FrameReader(name, directory=tmp_path)
    with pytest.raises(FrameError, match="camera name"):
        FrameWriter(name, width=8, height=8, directory=tmp_path)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"width": 0}, "0x4"),
        ({"height": 100_000}, "8x100000"),
        ({"slots": 1}, "1 slots"),
        ({"pixel_format": "jpeg"}, "known are bgr24, rgb24, gray8"),
    ],
)
def test_an_impossible_ring_is_refused(tmp_path: Path, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(FrameError, match=problem):
        small(tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


def test_a_foreign_file_is_neither_read_nor_replaced(tmp_path: Path) -> None:
    path = tmp_path / "edgeml-cam"
    path.write_bytes(b"somebody's notes" * 1000)
    with pytest.raises(FrameError, match="expected the magic b'EDGEMLFR'"):
        FrameReader("cam", directory=tmp_path).read(0)
    with pytest.raises(FrameError, match="left alone"):
        small(tmp_path)
    assert path.read_bytes() == b"somebody's notes" * 1000


def test_links_pipes_and_files_others_may_write_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "edgeml-cam"
    with small(tmp_path, directory=tmp_path) as writer:
        writer.path.chmod(0o666)
        with pytest.raises(FrameError, match="expected a file of user"):
            FrameReader("cam", directory=tmp_path).read(0)
        (tmp_path / "edgeml-link").symlink_to(path)
        with pytest.raises(FrameError, match="cannot be opened"):
            FrameReader("link", directory=tmp_path).read(0)
    os.mkfifo(path)
    with pytest.raises(FrameError, match="expected a file of user"):
        FrameReader("cam", directory=tmp_path).read(0)


def test_no_truncated_or_corrupt_ring_crashes_a_reader(tmp_path: Path) -> None:
    with small(tmp_path) as writer:
        for _ in range(5):
            writer.write(image(1))
        good = writer.path.read_bytes()
    path = tmp_path / "edgeml-cam"
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        chance = random.Random(1)
        for length in [0, 1, 8, HEADER.size, 4096, len(good) - 1, len(good) + 1]:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, good[:length].ljust(length, b"\0"), 0)
            with pytest.raises(FrameError):
                FrameReader("cam", directory=tmp_path).read(0)
        os.ftruncate(descriptor, 0)
        for _ in range(400):
            data = bytearray(good)
            offset = chance.randrange(0, 4096 + 64) // 4 * 4 if chance.random() < 0.3 else chance.randrange(0, 18) * 4
            data[offset : offset + 4] = struct.pack("=I", chance.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 65536, 3]))
            os.pwrite(descriptor, data, 0)
            for policy in ("newest", "every"):
                try:
                    FrameReader("cam", directory=tmp_path, policy=policy).read(0)
                except FrameError as error:
                    assert str(path) in str(error)
                    assert not isinstance(error, RingNotFoundError)
    finally:
        os.close(descriptor)


def test_a_ring_of_another_abi_is_named(tmp_path: Path) -> None:
    with small(tmp_path) as writer:
        with writer.path.open("r+b") as file:
            file.seek(8)
            file.write(struct.pack("=I", 99))
        with pytest.raises(FrameError, match="ABI version 99, expected 1"):
            FrameReader("cam", directory=tmp_path).read(0)


def test_a_ring_without_room_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        with pytest.raises(FrameError, match=r"3\.7 MB for 4 frames.* cannot be made: File too large"):
            small(tmp_path, width=640, height=480)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_the_default_directory_is_shared_memory_and_left_empty() -> None:
    camera = f"test-{os.getpid()}"
    with FrameWriter(camera, width=8, height=4) as writer, FrameReader(camera) as reader:
        assert writer.path == Path("/dev/shm") / f"edgeml-{camera}"
        writer.write(image(1))
        assert reader.read(0) is not None
    assert not writer.path.exists()
