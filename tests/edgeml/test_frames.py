"""Frames between real processes: in order, awaited, lapped, resized, and across kill -9 of either side."""

import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgeml import frames
from edgeml.errors import FrameError
from edgeml.frames import Frame, FrameReader
from frame_support import READER, Child, Writer, drain, image, is_pure, small
from support import eventually


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    with Writer(tmp_path) as child:
        yield child


def test_every_gives_each_frame_in_order_and_newest_the_newest(writer: Writer, tmp_path: Path) -> None:
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


def test_readers_of_a_process_share_one_mapping_of_a_ring(tmp_path: Path) -> None:
    readers = [FrameReader("cam", directory=tmp_path) for _ in range(2)]
    for value in (7, 8):  # of a writer, and of the next one under its name
        with small(tmp_path) as writer:
            writer.write(image(value))
            one, other = (reader.read(1.0, copy=False) for reader in readers)
            assert one is not None
            assert other is not None
            assert np.shares_memory(one.image, other.image)
            assert one.image[0, 0, 0] == value
            readers[0].close()
            assert other.valid()
            assert other.image[0, 0, 0] == value


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
    writer: Writer, tmp_path: Path
) -> None:
    reader = FrameReader("cam", directory=tmp_path, policy="every")
    writer.tell("write 2")
    writer.tell("half")
    assert reader.writer_alive()
    writer.process.send_signal(signal.SIGKILL)  # not waited for: a zombie is dead too
    eventually(lambda: not reader.writer_alive(), what="the writer's death")
    assert [frame.frame_id for frame in drain(reader)] == [1, 2]
    assert reader.read(0.3) is None
    assert not reader.writer_alive()
    with Writer(tmp_path) as successor:
        successor.tell("write 1")
        frame = reader.read(5.0)
        assert reader.writer_alive()
    assert frame is not None
    assert frame.frame_id == 1
    assert is_pure(frame)
    assert (reader.stats.reattached, reader.stats.torn) == (1, 0)


def test_a_dead_writers_frames_are_not_shown_to_a_new_reader(writer: Writer, tmp_path: Path) -> None:
    writer.tell("write 3")
    writer.kill()
    assert FrameReader("cam", directory=tmp_path).read(0) is None


def test_a_killed_reader_harms_no_one(writer: Writer, tmp_path: Path) -> None:
    survivor = FrameReader("cam", directory=tmp_path, policy="every")
    with Child(READER, tmp_path) as victim:
        writer.tell("write 1")
        victim.hear("got")
    writer.tell("write 3")
    assert [frame.frame_id for frame in drain(survivor)] == [1, 2, 3, 4]


@pytest.mark.parametrize("copy", [True, False])
def test_a_lapped_reader_counts_and_never_sees_two_frames_in_one(tmp_path: Path, copy: bool) -> None:
    reader = FrameReader("cam", directory=tmp_path, policy="every")
    stats, last, overwritten = reader.stats, 0, 0
    until = time.monotonic() + 30
    with Writer(tmp_path, slots=2) as flood:
        flood.tell("flood")
        while (
            time.monotonic() < until
            and min(stats.received - 200, stats.lapped, stats.torn if copy else overwritten) <= 0
        ):
            frame = reader.read(1.0, copy=copy)
            if frame is None:  # each one it went for was overwritten meanwhile, which counts
                continue
            pure = is_pure(frame)
            assert frame.frame_id > last
            last = frame.frame_id
            if frame.valid():
                assert pure
            else:
                overwritten += 1
    assert stats.lapped > 0
    if copy:
        assert overwritten == 0
        assert stats.torn > 0  # the writer does come round in the middle of copies: the check is what saved us
    else:
        assert overwritten > 0


def test_every_frame_is_accounted_for(writer: Writer, tmp_path: Path) -> None:
    reader = FrameReader("cam", directory=tmp_path, policy="every")
    writer.tell("write 1")
    assert reader.read(0) is not None
    for burst in (3, 9, 1, 30):
        writer.tell(f"write {burst}")
        drain(reader)
    stats = reader.stats
    assert stats.received + stats.lapped + stats.torn == 1 + 3 + 9 + 1 + 30
    assert stats.lapped == (9 - 4) + (30 - 4)


def test_a_stream_that_changes_size_goes_on_with_nothing_lost(writer: Writer, tmp_path: Path) -> None:
    reader = FrameReader("cam", directory=tmp_path, policy="every")
    writer.tell("write 2")
    first = reader.read(0)
    writer.tell("resize 320 200")
    writer.tell("write 2")
    received = [first, *drain(reader)]
    shapes = [(frame.frame_id, frame.width, frame.image.shape) for frame in received if frame and is_pure(frame)]
    assert shapes == [
        (1, 640, (480, 640, 3)),
        (2, 640, (480, 640, 3)),
        (3, 320, (200, 320, 3)),
        (4, 320, (200, 320, 3)),
    ]
    assert (reader.stats.lapped, reader.stats.reattached) == (0, 1)


def test_a_reader_waits_for_a_ring_and_for_a_frame(tmp_path: Path) -> None:
    reader = FrameReader("cam", directory=tmp_path)
    assert reader.read(0) is None
    assert not reader.writer_alive()
    seen: list[Frame | None] = []
    thread = threading.Thread(target=lambda: seen.append(reader.read(20.0)))
    thread.start()
    with Writer(tmp_path) as child:
        child.tell("write 1")
        thread.join(5)
    assert [frame and frame.frame_id for frame in seen] == [1]


def test_waiting_costs_no_processor_time(tmp_path: Path) -> None:
    with small(tmp_path), FrameReader("cam", directory=tmp_path) as reader:
        reader.read(0)
        before = time.thread_time()
        assert reader.read(0.5) is None
        assert time.thread_time() - before < 0.05


def test_each_frame_wakes_every_waiting_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "CHECK_S", 60.0)  # else a reader that was not woken would look for itself soon
    received: list[int] = []

    def read() -> None:
        reader = FrameReader("cam", directory=tmp_path, policy="every")
        for _ in range(5):
            frame = reader.read(30.0)
            received.append(frame.frame_id if frame else 0)

    def both_have(number: int) -> bool:
        return received.count(number) == 2

    with small(tmp_path) as writer:
        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in range(1, 6):
            time.sleep(0.02)  # lets the readers fall asleep; the test holds without it, but would show less
            writer.write(image(1))
            eventually(partial(both_have, number), 5.0, f"frame {number} at both readers")
        for thread in threads:
            thread.join(5)


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
def test_a_frame_of_another_shape_or_type_is_refused(tmp_path: Path, wrong: NDArray[np.uint8]) -> None:
    with small(tmp_path) as writer, pytest.raises(FrameError, match=r"takes \(4, 8, 3\) uint8"):
        writer.write(wrong)


def test_a_frame_of_a_time_is_found_while_it_is_in_the_ring(tmp_path: Path) -> None:
    """Ten a second, of which the ring has the last two or more: half of their distance is near enough."""
    with small(tmp_path) as writer, FrameReader("cam", directory=tmp_path) as reader:
        assert reader.at(1.0) is None
        for number in range(1, 8):
            writer.write(image(number), wall_ns=int((100 + number / 10) * 1e9))
        newest = reader.read(0)
        assert newest is not None
        for near in (100.7, 100.74):
            frame = reader.at(near)
            assert frame is not None
            assert frame.frame_id == 7
        assert [reader.at(far) for far in (1.0, 100.76, float("nan"), float("inf"))] == [None] * 4
        old = reader.at(100.61)
        assert old is not None
        assert (old.frame_id, int(old.image[0, 0, 0])) == (6, 6)
        assert reader.read(0) is None  # what was looked for did not turn it back
        writer.write(image(8), wall_ns=int(500e9))
        assert reader.at(480.0) is None  # however far two frames are apart
