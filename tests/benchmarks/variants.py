"""The variant that a machine chooses beside fp32: the same picture, one thread, in turns; and how far answers agreed.

Bars are for machines with VNNI; on others the figures are shown.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.bundles import installed
from benchmarks.detecting import picture, timed
from benchmarks.harness import Row, interleave
from edgeml import models
from edgeml.bundle import MODEL, Bundle
from edgeml.variants import this_processor
from inferencer.backends.onnx import OnnxBackend
from inferencer.preprocess import Array
from inferencer.sources.camera import CameraSource
from inferencer.tasks import runner_of
from inferencer.trial import How
from inferencer.variants import chosen
from inferencer_support import pipeline, sample

# Folder, name, width and height of the picture, times as fast as fp32 on VNNI.
CASES = (
    ("image_classifier", "ImageClassifier", 640, 480, 1.7),
    ("face_detector", "FaceDetector", 640, 384, 1.4),
    ("face_detector", "FaceDetector", 1280, 736, 1.5),
)


def run() -> list[Row]:
    made = []
    for folder, name, width, height, bar in CASES:
        with installed(folder) as root, tempfile.TemporaryDirectory() as work:
            bundle = models.load(models.component_folder(root, name))
            how = How("auto", 10.0, ("CPUExecutionProvider",), 1, "all", patient=False)
            best = chosen(bundle, how, Path(work) / "variants.json")
            made.append(row(bundle, best, picture(width, height), bar))
    return made


def row(bundle: Bundle, best: Bundle, image: Array, bar: float) -> Row:
    plain = bundle.using(MODEL)
    accuracy = {variant.file: next(iter(variant.accuracy.values())) for variant in bundle.manifest.variants}
    agreement = accuracy.get(best.file, 1.0)  # on the pictures that it was judged with
    figures = interleave({"fp32": ours(plain, image), "best": ours(best, image)}, rounds=9)
    ratio = figures["fp32"] / figures["best"]
    vnni = "x86_64_vnni" in this_processor().isas
    size = f"{image.shape[1]}x{image.shape[0]}"
    return Row(
        bench="variants",
        metric=f"{bundle.ref.name} {size}, {best.variant or 'no variants'}, agreement {agreement:g}",
        unit="ms",
        value=figures["best"],
        limit=figures["fp32"],
        ratio=ratio,
        bar=f">= {bar:g} x as fast as fp32" if vnni else "shown: no VNNI here",
        ok=not vnni or (ratio >= bar and agreement >= 0.99),
    )


def ours(bundle: Bundle, image: Array) -> Callable[[], float]:
    session = models.open_session(bundle, threads=1)
    runner = runner_of(bundle, session, pipeline(OnnxBackend(model=bundle.ref.name), CameraSource(camera="c")))
    return timed(lambda: runner.infer(sample(image)))
