"""The bundle edgeml.model.Duration: the best model that cloud/training/train_tabular.py found.

`./scripts/train duration` makes model.json and model.onnx anew.
"""

from pathlib import Path

from bundles.assemble import assemble
from edgeml import models

HERE = Path(__file__).resolve().parent


def build(out: Path) -> None:
    """Writes the bundle into the folder `out`: the files that lie here. Raises BundleError."""
    names = ["model.onnx", *models.read_manifest(HERE).files]
    assemble(HERE, out, {name: (HERE / name).read_bytes() for name in names})
