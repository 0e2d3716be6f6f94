"""How large the components' environments are, whatever lies in other people's folders."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from monitor.vitals import packages
from monitor.vitals.limits import Limits


def test_packages_are_summed_by_component(tmp_path: Path) -> None:
    for name in ("A/venv-1", "A/venv-2/deep", "B/venv-1", "C/other"):
        (tmp_path / "work" / name).mkdir(parents=True)
        (tmp_path / "work" / name / "x").write_bytes(b"x" * 100_000)
    (tmp_path / "work" / "A" / "venv").symlink_to("venv-1")
    (tmp_path / "work" / "B" / "venv-1" / "loop").symlink_to("..")
    (tmp_path / "work" / "D").mkdir()
    (tmp_path / "work" / "D" / "venv-x").symlink_to(tmp_path / "work" / "A" / "venv-1")
    os.link(tmp_path / "work" / "B" / "venv-1" / "x", tmp_path / "work" / "B" / "venv-1" / "same")
    found = packages.sizes(tmp_path, lambda seconds: None)
    assert {name: size // 100_000 for name, size in found.items()} == {"A": 2, "B": 1}


def test_a_flood_of_files_is_not_counted_to_its_end(tmp_path: Path) -> None:
    folder = tmp_path / "work" / "A" / "venv-1"
    folder.mkdir(parents=True)
    for number in range(50):
        (folder / str(number)).write_bytes(b"x")
    paused: list[float] = []
    one = packages.sizes(tmp_path, paused.append, 2)["A"]
    assert 0 < one < packages.sizes(tmp_path, paused.append, 40)["A"]
    assert not paused
    for number in range(250):
        (folder / f"more{number}").write_bytes(b"x")
    assert packages.sizes(tmp_path, paused.append, 210)["A"] > packages.sizes(tmp_path, paused.append, 199)["A"]
    assert paused == [packages.PAUSE_S]


def test_folders_beyond_the_bound_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, opened = os.scandir, list[str]()

    def scandir(folder: str) -> Any:
        opened.append(folder)
        return real(folder)

    for number in range(50):
        (tmp_path / "work" / "A" / "venv-1" / str(number)).mkdir(parents=True)
    monkeypatch.setattr(os, "scandir", scandir)
    packages.sizes(tmp_path, lambda seconds: None, 10)
    assert len([folder for folder in opened if "venv-1" in os.fspath(folder)]) <= 10


def test_strange_folders_neither_break_it_nor_what_is_told(tmp_path: Path) -> None:
    bad = tmp_path / "work" / os.fsdecode(b"edgeml.\xff" + b"x" * 200)
    (bad / "venv-1" / "lib").mkdir(parents=True)
    deep = tmp_path / "work" / "Deep" / "venv-1" / "/".join("d" * 200)
    deep.mkdir(parents=True)
    (deep / "x").write_bytes(b"x" * 1_000_000)
    (tmp_path / "work" / "file").write_bytes(b"x")
    found = packages.sizes(tmp_path, lambda seconds: None)
    assert len(found) == 2
    assert found["Deep"] < 1_000_000, "it is not followed so deep"
    assert msgspec.json.encode(packages.judge(found, Limits(), set()).vitals)
