"""The figures that our tracks are held against are still those of the other tracker.

Needs a Python that can import `trackers` 2.6.1: this one, or the one that EDGEML_TRACKERS_PYTHON names.
"""

import json
import os
import subprocess
import sys

import pytest

from peers import trackers_reference

pytestmark = pytest.mark.peer

PYTHON = os.environ.get("EDGEML_TRACKERS_PYTHON", sys.executable)


def test_the_kept_figures_are_those_of_the_other_tracker() -> None:
    kept = json.loads(trackers_reference.KEPT.read_text(encoding="utf-8"))
    try:
        found = subprocess.run([PYTHON, "-c", "import trackers"], capture_output=True, text=True, timeout=60)
    except OSError as error:
        pytest.skip(f"EDGEML_TRACKERS_PYTHON: {error}")
    if found.returncode:
        pytest.skip(f"{PYTHON} cannot import trackers: {found.stderr.splitlines()[-1]}")
    anew = trackers_reference.made(PYTHON)
    assert anew["version"] == kept["version"] == trackers_reference.VERSION
    assert anew["idf1"] == pytest.approx(kept["idf1"], abs=2e-3)
