import os
import stat
import tracemalloc
from pathlib import Path

import pytest

from edgeml.files import read_regular, write_atomic


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_replaces_a_file_by_bytes_or_text(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_atomic(path, b"old, and longer")
    write_atomic(path, "größer")
    assert path.read_text(encoding="utf-8") == "größer"
    assert names(tmp_path) == ["state.json"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o666])
def test_mode_holds_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        write_atomic(tmp_path / "key", b"x", mode=mode)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == mode


def test_an_open_reader_keeps_the_old_content_whole(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_atomic(path, b"old")
    with path.open("rb") as reader:
        write_atomic(path, b"new")
        assert reader.read() == b"old"


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "state"
    write_atomic(path, b"old")
    with pytest.raises(TypeError):
        write_atomic(path, 5)  # type: ignore[arg-type]
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["state"]


def test_a_failed_rename_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        write_atomic(tmp_path / "folder", b"x")
    assert names(tmp_path) == ["folder"]


def test_a_symlink_is_replaced_and_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"kept")
    (tmp_path / "link").symlink_to(target)
    write_atomic(tmp_path / "link", b"new")
    assert target.read_bytes() == b"kept"
    assert not (tmp_path / "link").is_symlink()


def test_a_file_is_read_whole_within_its_limit_and_nothing_else_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "f"
    for size in (0, 1, 99_999, 100_000):
        path.write_bytes(b"x" * size)
        assert read_regular(path, 100_000) == b"x" * size
    path.write_bytes(b"x" * 100_001)
    with pytest.raises(OSError, match="more than 100000 bytes"):
        read_regular(path, 100_000)
    assert read_regular(Path("/proc/self/status"), 1 << 20).startswith(b"Name:")  # its size is said to be 0
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        read_regular(tmp_path / "pipe", 100)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(OSError, match="symbolic"):
        read_regular(tmp_path / "link", 1 << 20, follow=False)


def test_reading_takes_no_more_memory_than_the_file(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * 1000)
    tracemalloc.start()
    try:
        read_regular(tmp_path / "f", 1 << 31)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
