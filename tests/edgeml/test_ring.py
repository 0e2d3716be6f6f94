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

import pytest

from edgeml.errors import FrameError, RingNotFoundError
from edgeml.frames import FrameReader, FrameWriter, Motion
from frame_support import Writer, image, small, spent

HEADER_SIZE = 80  # bytes that are used of its page


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
        for length in [0, 1, 8, HEADER_SIZE, 4096, len(good) - 1, len(good) + 1]:
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


def test_a_ring_that_says_closed_while_its_writer_lives_is_waited_for(writer: Writer, tmp_path: Path) -> None:
    writer.tell("write 1")
    path = tmp_path / "edgeml-cam"
    with path.open("r+b") as file, FrameReader("cam", directory=tmp_path) as reader:
        assert reader.read(1) is not None
        file.seek(140)
        file.write(struct.pack("=I", 7))
        file.flush()
        assert spent(lambda: reader.read(0.3)) < 0.15
        assert reader.stats.reattached == 0  # it was let go once, and not taken up again and again
        assert reader.read(0) is None
        assert not reader.writer_alive()
        writer.tell("resize 320 240")
        writer.tell("write 1")
        frame = reader.read(5)
        assert frame is not None
        assert (frame.width, frame.frame_id) == (320, 2)


def test_a_ring_that_shrinks_is_let_go(tmp_path: Path) -> None:
    with small(tmp_path, width=640, height=480) as writer, FrameReader("cam", directory=tmp_path) as reader:
        writer.write(image(1, 640, 480))
        frame = reader.read(1, copy=False)
        assert frame is not None
        os.truncate(writer.path, 0)
        with pytest.raises(FrameError, match="not a frame ring"):
            reader.read(0.05)
        with pytest.raises(FrameError, match="not a frame ring"):
            reader.writer_alive()
        assert not frame.valid()
        with pytest.raises(FrameError, match="cut by somebody else"):
            writer.write(image(1, 640, 480))
        assert writer.lost()
        writer.path.unlink()
        assert reader.read(0) is None


def test_what_a_hostile_writer_puts_into_the_words_is_a_frame_or_none(tmp_path: Path) -> None:
    """Every word that both sides race on, with every value that could lead a reader astray, in every policy."""
    values = [0, 1, 2, 2**31, 2**32 - 1, 2**63, 2**64 - 1, 2**64 - 2]
    with small(tmp_path) as writer, writer.path.open("r+b", buffering=0) as file:
        for _ in range(5):
            writer.write(image(1))
        readers = [FrameReader("cam", directory=tmp_path, policy=p) for p in ("newest", "every")]
        for offset in (128, 136, 4096, 4104, 4112, 4120, 4128):
            kept = os.pread(file.fileno(), 8, offset)
            for value in values:
                os.pwrite(file.fileno(), struct.pack("=Q", value), offset)
                fresh = [FrameReader("cam", directory=tmp_path, policy=p) for p in ("newest", "every")]
                for reader in [*readers, *fresh]:
                    for _ in range(3):
                        frame = reader.read(0.0, copy=False)
                        assert frame is None or isinstance(frame.valid(), bool)
            os.pwrite(file.fileno(), kept, offset)


def test_motion_travels_with_the_frame(tmp_path: Path) -> None:
    told = [None, Motion(True, 0.25), Motion(False, 0.0), Motion(True, 1.0), None]
    with small(tmp_path, slots=2) as writer, FrameReader("cam", directory=tmp_path) as reader:
        for motion in told:
            writer.write(image(1), motion=motion)
            frame = reader.read(0)
            assert frame is not None
            assert frame.motion == motion
        with writer.slot() as slot:
            slot.motion = Motion(True, 0.5)
        frame = reader.read(0)
        assert frame is not None
        assert frame.motion == Motion(True, 0.5)


def test_a_reader_of_version_1_0_is_not_disturbed_by_motion(tmp_path: Path) -> None:
    """Its layout, written out here: what it reads of frames with motion is what it reads of frames without."""
    with small(tmp_path, slots=2) as writer:
        for number, motion in enumerate((None, Motion(True, 0.5), Motion(False, 0.0)), 1):
            writer.write(image(number), captured_ns=100 + number, wall_ns=200 + number, motion=motion)
            data = writer.path.read_bytes()
            header = struct.unpack_from("=8sIIQQIIIIIIQQQ", data)
            magic, abi, slots, _, _, width, height, channels, code, stride, _, slot_bytes, _, base = header
            assert (magic, abi, slots, width, height, channels, code, stride) == (b"EDGEMLFR", 1, 2, 8, 4, 3, 0, 24)
            assert (slot_bytes, base, len(data)) == (64 + 128, 0, 4096 + 2 * (64 + 128))
            assert struct.unpack_from("=Q", data, 128) == (number,)
            at = 4096 + number % slots * slot_bytes
            assert struct.unpack_from("=QQQQ", data, at) == (2 * number, number, 100 + number, 200 + number)
            assert data[at + 64 : at + 64 + 96] == bytes([number]) * 96


def test_a_writer_of_version_1_0_says_nothing_of_motion(tmp_path: Path) -> None:
    with small(tmp_path, slots=2) as writer, FrameReader("cam", directory=tmp_path) as reader:
        writer.write(image(1), captured_ns=100, motion=Motion(True, 0.5))
        with writer.path.open("r+b", buffering=0) as file:
            os.pwrite(file.fileno(), bytes(32), 4096 + 64 + 128 + 32)  # what it never touches
        frame = reader.read(0)
        assert frame is not None
        assert (frame.frame_id, frame.captured_ns, frame.motion) == (1, 100, None)


@pytest.mark.parametrize("word", [3, 1 << 31, 2**32 - 1, 1_000_001 << 32 | 2, 2**64 - 1])
def test_motion_that_no_writer_of_ours_writes_is_none(word: int) -> None:
    assert Motion.unpacked(word) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of other users")
@pytest.mark.parametrize("name", ["edgeml-{}", ".edgeml-{}.new"])
def test_who_has_taken_the_name_of_a_ring_is_named(name: str) -> None:
    camera = f"taken-{os.getpid()}"
    taken = Path("/dev/shm") / name.format(camera)
    taken.touch(0o600)
    try:
        os.chown(taken, 1, 1)
        os.seteuid(65534)
        try:
            with pytest.raises(FrameError, match=rf"{camera}.* belongs to user daemon \(1\): let it be removed"):
                FrameWriter(camera, width=8, height=4)
        finally:
            os.seteuid(0)
        assert taken.exists()
    finally:
        taken.unlink()
