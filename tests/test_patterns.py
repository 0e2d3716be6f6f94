"""No regular expression of the components takes more than linear time, whatever text it is given."""

import subprocess
import sys
from pathlib import Path

import pattern_growth
from forked import popen

ROOT = Path(__file__).resolve().parents[1]


def grown(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """In a process of its own: a pattern that explodes holds up all of it, signals included."""
    command = [sys.executable, pattern_growth.__file__, *arguments]
    with popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        output, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


def test_every_pattern_of_the_components_takes_linear_time() -> None:
    done = grown()
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-2000:]}"
    assert int(done.stdout.split()[0]) > 60


def test_what_is_not_linear_is_found() -> None:
    for pattern in (r"(?:[0-9]+\.?[0-9]*)+x", r" *[a ]* *b"):
        done = grown(pattern)
        assert done.returncode != 0, pattern
        assert "superlinear" in done.stdout or done.returncode < 0, done
