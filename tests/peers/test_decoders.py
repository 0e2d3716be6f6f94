"""The answers that our decoders are held against are still those of the models' makers.

Needs a Python that can import ultralytics, rtmlib, transformers and torchvision, which EDGEML_DECODERS_PYTHON names.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from peers import decoders_reference

pytestmark = pytest.mark.peer

PYTHON = os.environ.get("EDGEML_DECODERS_PYTHON", sys.executable)


def test_the_kept_answers_are_those_of_the_makers() -> None:
    kept = json.loads(decoders_reference.KEPT.read_text(encoding="utf-8"))
    try:
        found = subprocess.run(
            [PYTHON, "-c", "import ultralytics, rtmlib, transformers, torchvision"],
            capture_output=True,
            text=True,
            timeout=120,
        )
    except OSError as error:
        pytest.skip(f"EDGEML_DECODERS_PYTHON: {error}")
    if found.returncode:
        pytest.skip(f"{PYTHON} cannot import the makers' packages: {found.stderr.splitlines()[-1]}")
    anew = decoders_reference.made(PYTHON)["answers"]
    assert anew.keys() == kept["answers"].keys()
    for name, answer in anew.items():
        assert answer["classes"] == kept["answers"][name]["classes"], name
        np.testing.assert_allclose(answer["boxes"], kept["answers"][name]["boxes"], atol=0.01, err_msg=name)
