from pathlib import Path

import pytest

from log_shipper.checkpoint import Checkpoint
from log_shipper.errors import CheckpointError
from log_shipper.identity import Mark


def opened(path: Path) -> Checkpoint:
    checkpoint = Checkpoint(path)
    checkpoint.open()
    return checkpoint


def test_marks_and_cursors_survive_reopening_and_logs_do_not_mix(tmp_path: Path) -> None:
    first = Mark(1000, 256, b"head", b"anchor")
    checkpoint = opened(tmp_path / "db")
    checkpoint.save("a", {(5, 2**64 - 1): first, (5, 7): first})
    checkpoint.save("b", {(5, 7): Mark(1, 1, b"x", b"y")})
    checkpoint.save("a", {(5, 8): first}, forgotten=[(5, 7)])
    checkpoint.save_cursor("unit", "s=1")
    checkpoint.close()
    checkpoint = opened(tmp_path / "db")
    assert checkpoint.marks("a") == {(5, 2**64 - 1): first, (5, 8): first}
    assert checkpoint.marks("b") == {(5, 7): Mark(1, 1, b"x", b"y")}
    assert (checkpoint.cursor("unit"), checkpoint.cursor("other")) == ("s=1", "")
    checkpoint.close()
    assert (tmp_path / "db").stat().st_mode & 0o777 == 0o600


def test_what_is_no_database_is_set_aside_and_begun_anew(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"no database " * 1000)
    checkpoint = opened(tmp_path / "db")
    assert checkpoint.marks("a") == {}
    checkpoint.close()
    assert (tmp_path / "db.corrupt").read_bytes().startswith(b"no database")


def test_a_folder_that_is_not_there_is_an_error_of_ours(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot record progress in"):
        opened(tmp_path / "missing" / "db")
