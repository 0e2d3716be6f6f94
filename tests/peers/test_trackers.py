"""The figures that our tracks are held against are still those of the other tracker.

Needs a Python that can import `trackers` 2.6.1 and `trackeval`: the one that EDGEML_TRACKERS_PYTHON names.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.peer

ROOT = Path(__file__).resolve().parents[2]
PYTHON = os.environ.get("EDGEML_TRACKERS_PYTHON", sys.executable)
SCRIPT = ROOT / "tests/peers/trackers_reference.py"


def test_the_kept_figures_are_those_of_the_other_tracker() -> None:
    kept = json.loads(SCRIPT.with_suffix(".json").read_text(encoding="utf-8"))
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/tests:{ROOT}/scripts"}
    try:
        found = subprocess.run(
            [PYTHON, "-c", "import trackers, trackeval"], capture_output=True, text=True, timeout=60, env=environment
        )
    except OSError as error:
        pytest.skip(f"EDGEML_TRACKERS_PYTHON: {error}")
    if found.returncode:
        pytest.skip(f"{PYTHON} cannot import trackers: {found.stderr.splitlines()[-1]}")
    made = subprocess.run(
        [PYTHON, str(SCRIPT), "--print"], capture_output=True, text=True, timeout=100, env=environment, check=True
    )
    anew = json.loads(made.stdout.splitlines()[-1])
    assert anew["version"] == kept["version"]
    assert anew["idf1"] == pytest.approx(kept["idf1"], abs=2e-3)
