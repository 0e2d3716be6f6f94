"""The environment that training runs in: PyTorch, scikit-learn and Jupyter are too large for every machine's tests."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

import forked
from support import ROOT

PYTHON = ROOT / ".venv-training" / "bin" / "python"
needs_training = pytest.mark.skipif(
    not (ROOT / ".venv-training" / "stamp").exists(), reason="needs .venv-training: ./scripts/train --setup"
)


def run(library: str, *arguments: str | Path, **options: Any) -> "subprocess.CompletedProcess[str]":
    """The environment's Python with these arguments, to its end. The library takes seconds: it is imported once."""
    forked.import_first(PYTHON, library)
    command = [str(PYTHON), *arguments]
    with forked.popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options) as process:
        try:
            out, err = process.communicate(timeout=100)
        finally:
            process.kill()
    return subprocess.CompletedProcess(command, process.returncode, out, err)
