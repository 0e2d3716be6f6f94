"""What AWS's translator makes of a template is kept for the next process, and made anew when it is of no use."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from localdev.cloud import template
from localdev.cloud.template import Stack

TEXT = """
Transform: AWS::Serverless-2016-10-31
Resources:
  Jobs:
    Type: AWS::Serverless::Function
    Properties: {CodeUri: jobs, Handler: app.handler, Runtime: python3.12, MemorySize: MEMORY}
"""


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], int]:
    """What a process reads of a function's memory from a template that says so, in a file of that name."""
    monkeypatch.setattr(template, "CACHE", tmp_path / "kept")

    def read(megabytes: int, name: str) -> int:
        file = tmp_path / f"{tmp_path.name}-{name}"  # a process remembers what it has read by name
        file.write_text(TEXT.replace("MEMORY", str(megabytes)))
        (function,) = Stack(file).of_type("AWS::Lambda::Function")
        return int(function.properties["MemorySize"])

    return read


def test_it_is_kept_until_the_template_changes(memory: Callable[[int, str], int], tmp_path: Path) -> None:
    assert memory(128, "first") == 128
    (kept,) = (tmp_path / "kept").iterdir()
    made = kept.stat().st_mtime_ns
    assert memory(128, "second") == 128
    assert [path.stat().st_mtime_ns for path in (tmp_path / "kept").iterdir()] == [made]
    assert memory(256, "third") == 256
    assert memory(128, "fourth") == 128


@pytest.mark.parametrize(
    "spoil", [lambda path: path.write_text("{"), lambda path: path.write_bytes(b"\xff"), Path.unlink]
)
def test_what_cannot_be_read_is_made_anew(
    spoil: Callable[[Path], object], memory: Callable[[int, str], int], tmp_path: Path
) -> None:
    assert memory(128, "first") == 128
    (kept,) = (tmp_path / "kept").iterdir()
    good = kept.read_bytes()
    spoil(kept)
    assert memory(128, "second") == 128
    assert kept.read_bytes() == good
    shutil.rmtree(tmp_path / "kept")
    assert memory(128, "third") == 128
