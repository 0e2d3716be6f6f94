"""The bundle edgeml.model.WindTurbine: an autoencoder of six signals, trained by cloud/training/train_autoencoder.py.

`./scripts/train wind_turbine` makes model.json, model.onnx and the statistics anew.
"""

from pathlib import Path

from bundles.assemble import assemble
from edgeml import models

HERE = Path(__file__).resolve().parent


def build(out: Path) -> None:
    """Writes the bundle into the folder `out`: the files that lie here. Raises BundleError."""
    names = ["model.onnx", *models.read_manifest(HERE).files]
    assemble(HERE, out, {name: (HERE / name).read_bytes() for name in names})
