import json
import os
from pathlib import Path
from typing import Any

import pytest

from edgeml._last_good import LastGood


def test_what_was_kept_is_found_by_the_same_version_only(tmp_path: Path) -> None:
    assert LastGood(tmp_path, "1.0.0").load() is None
    LastGood(tmp_path, "1.0.0").keep({"a": {"b": [1, "ü"]}, "accessControl": {"x": 1}})
    assert LastGood(tmp_path, "1.0.0").load() == {"a": {"b": [1, "ü"]}}
    assert LastGood(tmp_path, "1.0.1").load() is None
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600


def test_the_newest_two_versions_are_kept(tmp_path: Path) -> None:
    for number, version in enumerate(["1.0.0", "1.1.0", "2.0.0", "1.1.0"]):
        LastGood(tmp_path, version).keep({"n": number})
        for age, path in enumerate(sorted(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)):
            os.utime(path, (age, age))  # a coarse clock gives several the same time
    assert {path.name for path in tmp_path.iterdir()} == {"last-good-1.1.0.json", "last-good-2.0.0.json"}
    assert LastGood(tmp_path, "1.1.0").load() == {"n": 3}


def test_an_unchanged_configuration_is_not_written_again(tmp_path: Path) -> None:
    kept = LastGood(tmp_path, "1.0.0")
    kept.keep({"a": 1})
    before = (tmp_path / "last-good-1.0.0.json").stat()
    kept.keep({"a": 1})
    assert (tmp_path / "last-good-1.0.0.json").stat().st_ino == before.st_ino


def link(path: Path) -> None:
    (path.parent / "elsewhere").write_text("{}")
    path.symlink_to(path.parent / "elsewhere")


def hard_link(path: Path) -> None:
    (path.parent / "elsewhere").write_text("{}")
    (path.parent / "elsewhere").chmod(0o600)
    path.hardlink_to(path.parent / "elsewhere")


def open_to_all(path: Path) -> None:
    path.write_text("{}")
    path.chmod(0o660)


def text(content: str) -> Any:
    def write(path: Path) -> None:
        path.write_text(content)
        path.chmod(0o600)

    return write


@pytest.mark.parametrize(
    "damage",
    [
        link,
        hard_link,
        open_to_all,
        os.mkfifo,
        Path.mkdir,
        text("{"),
        text(""),
        text("[" * 5000),
        text('{"a": NaN}'),
        text("[1]"),
        text(json.dumps({"a": "x" * (1 << 21)})),
    ],
    ids=["link", "hardlink", "mode", "fifo", "folder", "half", "empty", "deep", "nan", "list", "long"],
)
def test_a_file_that_is_not_wholly_ours_is_none(tmp_path: Path, damage: Any) -> None:
    path, kept = tmp_path / "last-good-1.0.0.json", LastGood(tmp_path, "1.0.0")
    damage(path)
    assert kept.load() is None
    kept.keep({})
    assert kept.load() == (None if path.is_dir() else {})  # what a restart would not take is replaced


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    LastGood(tmp_path / "gone", "1.0.0").keep({"a": 1})
    assert "cannot be kept" in caplog.text
