"""Which Python makes the environment: the one that is asked for, the one that made it, python3."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support import ROOT

PYTHON = """#!/bin/sh
# Stands in for a Python that makes environments, of itself.
echo "{name} $*" >> "{log}"
case "$*" in
    *_base_executable*) echo "{path}" ;;
    *version_info*:3*) echo "(3, 12, 1)" ;;
    "-m venv "*) mkdir -p "$3/bin"; cp "{path}" "$3/bin/python" ;;
esac
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with a lock and nothing else, and two Pythons."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup", tmp_path / "scripts")
    for name in ("pyproject.toml", "requirements.lock"):
        (tmp_path / name).write_text("")
    for name in ("python3", "other"):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(PYTHON.format(name=name, path=path, log=tmp_path / "log"))
        path.chmod(0o755)
    return tmp_path


def made_by(tree: Path, **environment: str) -> list[str]:
    """Who made an environment."""
    (tree / "log").write_text("")
    path = os.pathsep.join([str(tree / "bin"), os.defpath])
    subprocess.run(["./scripts/setup"], cwd=tree, env={"PATH": path, **environment}, check=True, timeout=20)
    return [line.split()[0] for line in (tree / "log").read_text().splitlines() if " -m venv " in line]


def test_python3_makes_it_once(tree: Path) -> None:
    assert made_by(tree) == ["python3"]
    assert made_by(tree) == []
    (tree / "requirements.lock").write_text("another==1\n")
    assert made_by(tree) == ["python3"]


def test_the_one_that_is_asked_for_stays(tree: Path) -> None:
    assert made_by(tree, PYTHON=str(tree / "bin" / "other")) == ["other"]
    assert made_by(tree) == []
    (tree / "requirements.lock").write_text("another==1\n")
    assert made_by(tree) == ["other"]


def test_an_environment_whose_python_is_gone_is_made_anew(tree: Path) -> None:
    assert made_by(tree, PYTHON=str(tree / "bin" / "other")) == ["other"]
    (tree / ".venv" / "bin" / "python").unlink()
    (tree / "requirements.lock").write_text("another==1\n")
    assert made_by(tree) == ["python3"]
