"""Both notebooks run from top to bottom on little simulated data, in the venv that has Jupyter."""

import os
import subprocess
from pathlib import Path

import pytest

from support import ROOT
from training_support import PYTHON, needs_training

NOTEBOOKS = sorted((ROOT / "cloud" / "training" / "notebooks").glob("*.ipynb"))
pytestmark = needs_training

EXECUTE = """
import pathlib, sys, nbclient, nbformat
path = pathlib.Path(sys.argv[1])
notebook = nbformat.read(path, 4)
nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(path.parent)}}).execute()
outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
print(sum("image/png" in output.get("data", {}) for output in outputs), "plots")
"""


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda notebook: notebook.stem)
def test_a_notebook_runs_and_draws(notebook: Path, tmp_path: Path) -> None:
    settings = {"DATA": str(tmp_path), "READINGS": "1500", "EPOCHS": "1", "MODEL_PACKAGE_GROUP": ""}
    # Jupyter keeps its runtime files, and IPython its history, below these.
    private = {name: str(tmp_path / "home") for name in ("HOME", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "MPLCONFIGDIR")}
    done = subprocess.run(
        [PYTHON, "-c", EXECUTE, notebook],
        env=os.environ | settings | private,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "2 plots"


def test_no_outputs_are_committed() -> None:
    for notebook in NOTEBOOKS:
        assert '"output_type"' not in notebook.read_text()
