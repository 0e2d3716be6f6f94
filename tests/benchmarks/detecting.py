"""A detector of faces on a picture of a camera's size: as it is, bounded, and the small one, beside bare sessions."""

import time
from collections.abc import Callable

import cv2
import numpy as np

from benchmarks.bundles import installed
from benchmarks.harness import Row, interleave
from bundles.clips import face_clip
from edgeml import models
from edgeml.bundle import Bundle
from inferencer.backends.onnx import OnnxBackend
from inferencer.preprocess import Array, Preprocessor
from inferencer.sources.camera import CameraSource
from inferencer.tasks import runner_of
from inferencer_support import pipeline, sample

BOUND = 640
REPEATS = 5


def rows(bench: str, width: int, height: int) -> list[Row]:
    """One table of rows; each figure is ms a picture, with one thread."""
    image = picture(width, height)
    with installed("face_detector") as root, installed("face_detector_fast") as other:
        faces = models.load(models.component_folder(root, "FaceDetector"))
        fast = models.load(models.component_folder(other, "FaceDetectorFast"))
        figures = interleave(
            {
                "whole": ours(faces, image, 0),
                "bounded": ours(faces, image, BOUND),
                "bare bounded": bare(faces, image, BOUND),
                "fast": ours(fast, image, 0),
                "bare fast": bare(fast, image, 0),
            }
        )
    made = [Row(bench=bench, metric="FaceDetector, any size", unit="ms", value=figures["whole"], limit=None, ratio=None,
                bar="shown", ok=True)]  # fmt: skip
    for name, metric in (("bounded", f"FaceDetector, max_side {BOUND}"), ("fast", "FaceDetectorFast")):
        limit = figures[f"bare {name}"]
        ratio = figures[name] / limit
        made.append(
            Row(
                bench=bench,
                metric=metric,
                unit="ms",
                value=figures[name],
                limit=limit,
                ratio=ratio,
                bar="<= 1.2 x session.run on a tensor that is there",
                ok=ratio <= 1.2,
            )
        )
    return made


def picture(width: int, height: int) -> Array:
    """The face of a clip, enlarged, in a grey picture."""
    capture = cv2.VideoCapture(str(face_clip()))
    ok, frame = capture.read()
    capture.release()
    if not ok:
        raise RuntimeError(f"{face_clip()}: no frame")
    image = np.full((height, width, 3), 114, np.uint8)
    scale = height / frame.shape[0] / 2
    face = cv2.resize(np.asarray(frame), None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    image[: face.shape[0], : face.shape[1]] = face
    return image


def ours(bundle: Bundle, image: Array, max_side: int) -> Callable[[], float]:
    session = models.open_session(bundle, threads=1)
    runner = runner_of(bundle, session, pipeline(OnnxBackend(model=bundle.ref.name), CameraSource(camera="c")))
    runner.look(max_side, (1, 1))

    def infer() -> None:
        outcome = runner.infer(sample(image))
        if outcome is None or len(outcome.results) != 1:
            raise RuntimeError(f"{bundle.ref.name}: expected one face, found {outcome}")

    return timed(infer)


def bare(bundle: Bundle, image: Array, max_side: int) -> Callable[[], float]:
    session = models.open_session(bundle, threads=1)
    tensor, _ = Preprocessor(bundle.manifest.input, max_side)(image)
    return timed(lambda: session.run(None, {bundle.manifest.input.name: tensor}))


def timed(work: Callable[[], object]) -> Callable[[], float]:
    work()

    def run() -> float:
        began = time.perf_counter()
        for _ in range(REPEATS):
            work()
        return (time.perf_counter() - began) / REPEATS * 1e3

    return run
