"""The frame ring between real processes: killed, slow, resized, corrupt, and in order."""

import os
import random
import resource
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeml import _futex
from edgeml._ring_header import HEADER
from edgeml.errors import FrameError, RingNotFoundError
from edgeml.frames import Frame, FrameReader, FrameWriter
from support import ROOT, eventually

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
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT / "components")},
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


Spawn = Callable[..., Child]


@pytest.fixture
def spawn() -> Iterator[Spawn]:
    children: list[Child] = []

    def start(code: str, *arguments: object) -> Child:
        children.append(Child(code, *arguments))
        return children[-1]

    yield start
    for child in children:
        child.kill()


@pytest.fixture
def writer(spawn: Spawn, tmp_path: Path) -> Child:
    child = spawn(WRITER, tmp_path, 4)
    child.hear("ready")
    return child


def small(tmp_path: Path, **options: Any) -> FrameWriter:
    return FrameWriter("cam", **{"width": 8, "height": 4, "directory": tmp_path, **options})


def image(value: int, width: int = 8, height: int = 4) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    return np.full((height, width, 3), value, np.uint8)


def is_pure(frame: Frame) -> bool:
    return bool((frame.image == frame.frame_id % 251).all())


def drain(reader: FrameReader) -> list[Frame]:
    frames = []
    while (frame := reader.read(0)) is not None:
        frames.append(frame)
    return frames


def test_every_gives_each_frame_in_order_and_newest_the_newest(writer: Child, tmp_path: Path) -> None:
    every = FrameReader("cam", directory=tmp_path, policy="every")
    newest = FrameReader("cam", directory=tmp_path)
    ids = []
    for _ in range(5):
        writer.tell("write 3")
        ids += [frame.frame_id for frame in drain(every) if is_pure(frame)]
        frame = newest.read(1.0)
        assert frame is not None
        assert frame.frame_id == ids[-1]
    assert ids == list(range(1, 16))
    assert (every.stats.received, every.stats.lapped, every.stats.torn) == (15, 0, 0)
    assert (newest.stats.received, newest.stats.skipped) == (5, 8)  # frames before the first attach are not skipped


def test_a_frame_carries_its_times_size_and_format(tmp_path: Path) -> None:
    with small(tmp_path, pixel_format="rgb24") as writer, FrameReader("cam", directory=tmp_path) as reader:
        assert writer.write(image(7), captured_ns=123, wall_ns=456) == 1
        frame = reader.read(0)
        assert frame is not None
        assert (frame.captured_ns, frame.wall_ns) == (123, 456)
        assert (frame.width, frame.height, frame.pixel_format, frame.image.shape) == (8, 4, "rgb24", (4, 8, 3))
        writer.write(image(7), captured_ns=time.monotonic_ns() - 5_000_000_000)
        frame = reader.read(0)
        assert frame is not None
        assert time.time_ns() - frame.wall_ns == pytest.approx(5e9, abs=1e9)


def test_gray_frames_have_two_dimensions(tmp_path: Path) -> None:
    with small(tmp_path, pixel_format="gray8") as writer, FrameReader("cam", directory=tmp_path) as reader:
        writer.write(np.arange(32, dtype=np.uint8).reshape(4, 8))
        frame = reader.read(0)
        assert frame is not None
        assert np.array_equal(frame.image, np.arange(32).reshape(4, 8))


def test_a_view_is_read_only_and_says_when_it_was_overwritten(tmp_path: Path) -> None:
    with small(tmp_path, slots=2) as writer, FrameReader("cam", directory=tmp_path) as reader:
        writer.write(image(1))
        frame = reader.read(0, copy=False)
        assert frame is not None
        with pytest.raises(ValueError, match="read-only"):
            frame.image[0] = 9
        writer.write(image(2))
        assert frame.valid()
        with writer.slot():
            assert not frame.valid()


def test_a_writer_killed_in_the_middle_of_a_frame_is_noticed_and_its_successor_found(
    spawn: Spawn, writer: Child, tmp_path: Path
) -> None:
    reader = FrameReader("cam", directory=tmp_path, policy="every")
    writer.tell("write 2")
    writer.tell("half")
    assert reader.writer_alive()
    writer.kill()
    assert [frame.frame_id for frame in drain(reader)] == [1, 2]
    assert reader.read(0.3) is None
    assert not reader.writer_alive()
    successor = spawn(WRITER, tmp_path, 4)
    successor.hear("ready")
    successor.tell("write 1")
    frame = reader.read(5.0)
    assert frame is not None
    assert frame.frame_id == 1
    assert is_pure(frame)
    assert reader.writer_alive()
    assert (reader.stats.reattached, reader.stats.torn) == (1, 0)


def test_a_dead_writers_frames_are_not_shown_to_a_new_reader(writer: Child, tmp_path: Path) -> None:
    writer.tell("write 3")
    writer.kill()
    assert FrameReader("cam", directory=tmp_path).read(0) is None


def test_a_killed_reader_harms_no_one(spawn: Spawn, writer: Child, tmp_path: Path) -> None:
    victim = spawn(READER, tmp_path)
    survivor = FrameReader("cam", directory=tmp_path, policy="every")
    writer.tell("write 1")
    victim.hear("got")
    victim.kill()
    writer.tell("write 3")
    assert [frame.frame_id for frame in drain(survivor)] == [1, 2, 3, 4]


@pytest.mark.parametrize("copy", [True, False])
def test_a_lapped_reader_counts_and_never_sees_two_frames_in_one(spawn: Spawn, tmp_path: Path, copy: bool) -> None:
    flood = spawn(WRITER, tmp_path, 2)
    flood.hear("ready")
    reader = FrameReader("cam", directory=tmp_path, policy="every")
    flood.tell("flood")
    last, overwritten, until = 0, 0, time.monotonic() + 1.0
    while time.monotonic() < until or not reader.stats.lapped:
        frame = reader.read(1.0, copy=copy)
        assert frame is not None
        pure = is_pure(frame)
        assert frame.frame_id > last
        last = frame.frame_id
        if frame.valid():
            assert pure
        else:
            overwritten += 1
    stats = reader.stats
    assert stats.received > 20
    assert stats.lapped > 0
    if copy:
        assert overwritten == 0
        assert stats.torn > 0  # the writer does come round in the middle of copies: the check is what saved us


def test_every_frame_is_accounted_for(writer: Child, tmp_path: Path) -> None:
    reader = FrameReader("cam", directory=tmp_path, policy="every")
    writer.tell("write 1")
    assert reader.read(0) is not None
    for burst in (3, 9, 1, 30):
        writer.tell(f"write {burst}")
        drain(reader)
    stats = reader.stats
    assert stats.received + stats.lapped + stats.torn == 1 + 3 + 9 + 1 + 30
    assert stats.lapped == (9 - 4) + (30 - 4)


def test_a_stream_that_changes_size_goes_on_with_nothing_lost(writer: Child, tmp_path: Path) -> None:
    reader = FrameReader("cam", directory=tmp_path, policy="every")
    writer.tell("write 2")
    first = reader.read(0)
    writer.tell("resize 320 200")
    writer.tell("write 2")
    frames = [first, *drain(reader)]
    shapes = [(frame.frame_id, frame.width, frame.image.shape) for frame in frames if frame and is_pure(frame)]
    assert shapes == [
        (1, 640, (480, 640, 3)),
        (2, 640, (480, 640, 3)),
        (3, 320, (200, 320, 3)),
        (4, 320, (200, 320, 3)),
    ]
    assert (reader.stats.lapped, reader.stats.reattached) == (0, 1)


def test_a_reader_waits_for_a_ring_and_for_a_frame(spawn: Spawn, tmp_path: Path) -> None:
    reader = FrameReader("cam", directory=tmp_path)
    assert reader.read(0) is None
    assert not reader.writer_alive()
    seen: list[Frame | None] = []
    thread = threading.Thread(target=lambda: seen.append(reader.read(20.0)))
    thread.start()
    child = spawn(WRITER, tmp_path, 4)
    child.hear("ready")
    child.tell("write 1")
    thread.join(5)
    assert [frame and frame.frame_id for frame in seen] == [1]


def test_waiting_costs_no_processor_time(tmp_path: Path) -> None:
    with small(tmp_path), FrameReader("cam", directory=tmp_path) as reader:
        reader.read(0)
        before = time.thread_time()
        assert reader.read(0.5) is None
        assert time.thread_time() - before < 0.05


def test_a_waiter_is_woken_at_once_and_not_by_its_time_limit() -> None:
    word = np.zeros(1, np.uint32)
    thread = threading.Thread(target=_futex.wait, args=(word.ctypes.data, 0, 30.0))
    thread.start()

    def woken() -> bool:
        _futex.wake(word.ctypes.data)
        return not thread.is_alive()

    eventually(woken, 5.0, "the waiter's return")
    before = time.monotonic()
    _futex.wait(word.ctypes.data, 1, 30.0)
    assert time.monotonic() - before < 5


def test_frames_come_without_futex_too(writer: Child, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_futex, "_number", None)
    reader = FrameReader("cam", directory=tmp_path)
    assert reader.read(0.05) is None
    writer.tell("write 1")
    assert reader.read(5.0) is not None


def test_a_closed_ring_is_left_and_the_next_one_found(tmp_path: Path) -> None:
    reader = FrameReader("cam", directory=tmp_path, policy="every")
    with small(tmp_path) as writer:
        writer.write(image(1))
    assert reader.read(0) is None
    with small(tmp_path) as writer:
        writer.write(image(1))
        assert reader.read(0) is not None
        writer.write(image(2))
    with small(tmp_path, width=2) as writer:
        writer.write(image(3, width=2))
        assert [frame.image.shape for frame in drain(reader)] == [(4, 8, 3), (4, 2, 3)]
    with pytest.raises(FrameError, match="closed"):
        writer.write(image(1))
    assert list(tmp_path.iterdir()) == []


def test_a_slot_left_by_an_exception_is_not_shown(tmp_path: Path) -> None:
    with small(tmp_path) as writer, FrameReader("cam", directory=tmp_path) as reader:
        with pytest.raises(RuntimeError), writer.slot() as slot:
            slot.image[:] = 1
            raise RuntimeError
        assert reader.read(0) is None
        assert writer.write(image(2)) == 1
        assert reader.read(0) is not None


@pytest.mark.parametrize(
    "wrong", [image(1, width=9), image(1)[:, :, 0], image(1).astype(np.int16), np.zeros((0, 0, 3), np.uint8)]
)
def test_a_frame_of_another_shape_or_type_is_refused(
    tmp_path: Path, wrong: "np.ndarray[Any, np.dtype[np.uint8]]"
) -> None:
    with small(tmp_path) as writer, pytest.raises(FrameError, match=r"takes \(4, 8, 3\) uint8"):
        writer.write(wrong)


def test_a_live_writer_is_not_pushed_aside(writer: Child, tmp_path: Path) -> None:
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


def test_leftovers_of_killed_writers_are_replaced_and_nothing_stays(writer: Child, tmp_path: Path) -> None:
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
