"""Files and their identity, on a real folder, without a process."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from log_shipper.checkpoint import Checkpoint
from log_shipper.errors import CheckpointError
from log_shipper.files import FileSource
from log_shipper.identity import Seen
from log_shipper.parse import Parser


class Folder:
    """A folder of logs, its source, and everything that was delivered from it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.delivered: list[str] = []
        self.checkpoint = Checkpoint(path / "checkpoint.db")
        self.checkpoint.open()
        self.restart()

    def restart(self) -> None:
        """What a new process knows: the checkpoint."""
        self.source = FileSource("log", Parser("TRACE", None, rejoin_tracebacks=True), self.checkpoint)

    def write(self, name: str, *numbers: int) -> Path:
        file = self.path / name
        with file.open("a") as stream:
            stream.write("".join(f"{self.line(number)}\n" for number in numbers))
        os.utime(file, (1.7e9 + max(numbers, default=0), 1.7e9 + max(numbers, default=0)))  # settled, in order
        return file

    @staticmethod
    def line(number: int) -> str:
        return f"2026-11-21T10:00:00Z [INFO] (main) something: a line that is long enough to be told {number}"

    def look(self) -> None:
        seen = []
        for file in sorted(self.path.glob("*.log*")):
            status = file.stat()
            seen.append(Seen((status.st_dev, status.st_ino), str(file), status.st_size, status.st_mtime_ns))
        self.source.look(seen)

    def deliver(self) -> list[int]:
        """Scan, deliver all there is; the numbers of the lines."""
        self.look()
        found: list[str] = []
        while True:
            batch = self.source.next_batch(10_000)
            found += batch.texts
            self.source.delivered()
            if not self.source.more:
                break
        self.delivered += found
        return [int(text.rpartition(" ")[2]) for text in found]

    def read_and_fail(self) -> None:
        self.look()
        self.source.next_batch(10_000)
        self.source.rewind()

    def close(self) -> None:
        self.source.close()
        self.checkpoint.close()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path)
    yield made
    made.close()


def test_a_renamed_file_goes_on_where_it_was_and_comes_before_its_successor(folder: Folder) -> None:
    log = folder.write("a.log", 1, 2)
    assert folder.deliver() == [1, 2]
    folder.write("a.log", 3)
    log.rename(log.with_name("a_2026_11_21_05_0.log"))
    folder.write("a.log", 4)
    assert folder.deliver() == [3, 4]


def test_what_failed_is_read_again(folder: Folder) -> None:
    folder.write("a.log", 1, 2)
    folder.read_and_fail()
    assert folder.deliver() == [1, 2]
    assert folder.deliver() == []


def test_a_deleted_file_is_read_to_its_end(folder: Folder) -> None:
    log = folder.write("a.log", 1, 2)
    folder.read_and_fail()
    log.unlink()
    folder.write("a.log", 3)
    assert folder.deliver() == [1, 2, 3]
    assert folder.deliver() == []
    assert len(folder.source.tail.files) == 1


def test_a_truncated_file_begins_anew_even_when_it_has_grown_beyond_the_old_offset(folder: Folder) -> None:
    log = folder.write("a.log", 1)
    folder.deliver()
    log.write_text("")
    folder.write("a.log", 2, 3, 4)
    assert folder.deliver() == [2, 3, 4]


def test_a_batch_recorded_only_after_its_file_was_truncated_says_nothing_of_the_new_lines(folder: Folder) -> None:
    log = folder.write("a.log", 1, 2)
    folder.look()
    assert len(folder.source.next_batch(10_000).texts) == 2  # sent, but there is no room to record it
    log.write_text("")
    folder.write("a.log", 3, 4, 5)
    folder.look()
    folder.source.observe()
    folder.source.delivered()
    status = log.stat()
    seen = Seen((status.st_dev, status.st_ino), str(log), status.st_size, status.st_mtime_ns)
    assert not folder.source.has_delivered(seen)
    folder.source.rewind()
    assert folder.deliver() == [3, 4, 5]
    assert folder.source.has_delivered(seen)


def test_a_copy_made_before_the_truncation_is_not_read_twice(folder: Folder) -> None:
    log = folder.write("a.log", 1, 2)
    folder.deliver()
    folder.write("a.log", 3)
    log.with_name("a.log.1").write_bytes(log.read_bytes())
    assert folder.deliver() == [3]
    folder.write("a.log", 4)
    log.with_name("a.log.1").write_bytes(log.read_bytes())
    os.utime(log.with_name("a.log.1"), (1.7e9 + 4, 1.7e9 + 4))
    log.write_text("")
    folder.write("a.log", 5)
    assert sorted(folder.deliver() + folder.deliver()) == [4, 5]


def test_an_older_log_with_the_same_beginning_is_not_taken_for_a_copy(folder: Folder) -> None:
    folder.write("a.log", 1, 2)
    folder.deliver()
    folder.write("a.log.1", 1, 9)
    assert folder.deliver() == [1, 9]


def test_files_with_the_same_content_are_all_delivered(folder: Folder) -> None:
    for number in range(20):
        folder.write(f"file{number}.log", 7)
    assert folder.deliver() == [7] * 20
    for number in range(20, 30):
        folder.write(f"file{number}.log", 7)
    assert folder.deliver() == [7] * 10


def test_a_reused_inode_is_a_new_file(folder: Folder) -> None:
    folder.write("a.log", 1, 2)
    folder.deliver()
    folder.source.close()
    log = folder.path / "a.log"
    status = log.stat()
    with log.open("r+") as file:  # the same inode with other content is what reuse looks like
        file.write("2026-11-21T10:00:00Z [INFO] (main) other: content, same inode, longer than the file before it 8\n")
        file.write(f"{folder.line(9)}\n{folder.line(10)}\n")
    os.utime(log, (1.7e9 + 10, 1.7e9 + 10))
    assert log.stat().st_ino == status.st_ino
    folder.restart()
    assert folder.deliver() == [8, 9, 10]


def test_a_restart_goes_on_at_the_recorded_offset_even_under_other_device_and_inode_numbers(folder: Folder) -> None:
    log = folder.write("a.log", 1, 2)
    folder.deliver()
    folder.source.close()
    moved = log.with_name("copy.tmp")
    moved.write_bytes(log.read_bytes())
    log.unlink()
    moved.rename(log)
    folder.write("a.log", 3)
    folder.restart()
    assert folder.deliver() == [3]


def test_a_partial_last_line_waits_for_its_end(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    log = folder.path / "a.log"
    log.write_text(folder.line(1)[:30])
    assert folder.deliver() == []
    assert folder.source.waiting
    with log.open("a") as file:
        file.write(f"{folder.line(1)[30:]}\n")
    os.utime(log, (1.7e9, 1.7e9))
    assert folder.deliver() == [1]


def test_a_line_without_an_end_is_taken_after_a_while(folder: Folder) -> None:
    log = folder.path / "a.log"
    log.write_text(folder.line(1))
    os.utime(log, (1.7e9, 1.7e9))
    assert folder.deliver() == [1]


def test_a_deleted_file_that_was_never_open_is_counted_as_lost(folder: Folder) -> None:
    for number in range(40):
        folder.write(f"a_{number:02}.log", number)
    folder.read_and_fail()
    folder.source.tail.close()
    for file in folder.path.glob("*.log"):
        file.unlink()
    folder.deliver()
    assert folder.source.tail.lost_bytes > 0


def test_thousands_of_files_are_delivered_with_few_of_them_open(folder: Folder) -> None:
    for number in range(2000):
        (folder.path / f"f{number}.log").write_text(f"{number}\n")
    assert sorted(folder.deliver()) == list(range(2000))
    assert folder.deliver() == []
    assert len(os.listdir("/proc/self/fd")) < 300  # noqa: PTH208


def test_of_more_files_than_are_followed_each_line_is_delivered_once_whatever_happens_to_them(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("log_shipper.tail.MAX_FOLLOWED", 4)
    expected = list(range(30))
    for number in expected:
        folder.write(f"f{number}.log", number)
    found = folder.deliver() + folder.deliver()
    assert found == expected  # oldest first
    tail = folder.source.tail
    assert len(tail.files) <= 4
    assert len(tail.files) + len(tail.settled) == 30
    folder.write("f3.log", 100)  # a settled one grows, one is renamed, one deleted, one replaced, one truncated
    (folder.path / "f4.log").rename(folder.path / "f4.log.1")
    (folder.path / "f5.log").unlink()
    (folder.path / "f6.log").unlink()
    folder.write("f6.log", 101)
    (folder.path / "f7.log").write_text("")
    folder.write("f7.log", 102, 103, 104)
    assert sorted(folder.deliver() + folder.deliver()) == [100, 101, 102, 103, 104]
    folder.source.close()
    folder.restart()
    folder.write("f8.log", 105)
    assert folder.deliver() + folder.deliver() == [105]
    assert folder.source.tail.lost_bytes == 0
    assert folder.source.backlog() == 0


def test_files_that_vanish_before_they_are_looked_into_are_counted_as_lost(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("log_shipper.tail.MAX_FOLLOWED", 4)
    for number in range(10):
        folder.write(f"f{number}.log", number)
    folder.read_and_fail()
    assert len(folder.source.tail.later) == 6
    size = (folder.path / "f9.log").stat().st_size
    (folder.path / "f9.log").unlink()
    assert sorted(folder.deliver() + folder.deliver()) == list(range(9))
    assert folder.source.tail.lost_bytes == size


def test_a_progress_that_cannot_be_read_now_makes_no_line_come_twice(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("log_shipper.tail.MAX_FOLLOWED", 2)
    for number in range(4):
        folder.write(f"f{number}.log", number)
    assert folder.deliver() + folder.deliver() == [0, 1, 2, 3]
    folder.write("f0.log", 10)

    def failing(name: str, key: object) -> None:
        raise CheckpointError("disk")

    with monkeypatch.context() as patch:
        patch.setattr(folder.checkpoint, "mark", failing)
        with pytest.raises(CheckpointError):
            folder.deliver()
    assert folder.deliver() + folder.deliver() == [10]
