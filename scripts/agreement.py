"""How well the answers of one model agree with those of another: by labels, by boxes, by numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeml.bundle import Bundle
from edgeml.messages import SampleRef
from inferencer.backends.onnx import OnnxBackend
from inferencer.config import Pipeline
from inferencer.sample import Sample
from inferencer.sources.camera import CameraSource
from inferencer.tasks import runner_of

ANY, LABELS = 1e-9, 1000  # score, and how many labels
OVERLAP = 0.5  # from which on two boxes are of one object

Answers = list[Any]


def answers(bundle: Bundle, session: Any, samples: Sequence[Any]) -> Answers:
    """Of each sample the results of a pipeline, all labels of a classification; for numbers the outputs as they are."""
    manifest = bundle.manifest
    if manifest.input.layout == "tensor":
        tensors = [np.asarray(sample, manifest.input.dtype)[np.newaxis] for sample in samples]
        return [np.concatenate([np.ravel(o) for o in session.run(None, {manifest.input.name: t})]) for t in tensors]
    all_labels = manifest.task == "classification"
    pipeline = Pipeline(
        source=CameraSource(camera="c"),
        backend=OnnxBackend(model=bundle.ref.name),
        score_threshold=ANY if all_labels else 0.0,
        top_k=LABELS,
    )
    runner = runner_of(bundle, session, pipeline)
    outcomes = [runner.infer(Sample(sample, SampleRef(), 0, "bgr24")) for sample in samples]
    return [None if outcome is None else outcome.results for outcome in outcomes]


def compared(task: str, found: Answers, expected: Answers) -> dict[str, float]:
    """Measures of agreement, the first of which decides: 1 is all."""
    if task == "classification" and isinstance(expected[0], list):
        return _labels(found, expected)
    if task == "detection":
        return _boxes(found, expected)
    ours, theirs = np.stack(found).astype(np.float64), np.stack(expected).astype(np.float64)
    off, spread = np.sqrt(np.square(ours - theirs).mean()), theirs.std() or 1.0
    return {
        "agreement": round(float(1 - off / spread), 5),
        "rmse": round(float(off), 6),
        "mae": round(float(np.abs(ours - theirs).mean()), 6),
    }


def loss(accuracy: dict[str, float]) -> float:
    value = next(iter(accuracy.values()))
    return 1 - value if np.isfinite(value) else 1.0


def _mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 5) if len(values) else 1.0


def _labels(found: Answers, expected: Answers) -> dict[str, float]:
    """How often the first label is right where the expected one would be, by the expected scores: of two labels that
    are nearly alike either will do. Besides, how often it is the same one.
    """
    pairs = [(one[0].label if one else "", other) for one, other in zip(found, expected, strict=True) if other]
    lost = [other[0].score - max((r.score for r in other if r.label == first), default=0.0) for first, other in pairs]
    same = [first == other[0].label for first, other in pairs]
    return {
        "expected_top1": round(1 - _mean(lost), 5) if pairs else 1.0,
        "top1_agreement": _mean(same),
        "samples": float(len(pairs)),
    }


def _boxes(found: Answers, expected: Answers) -> dict[str, float]:
    """Twice the boxes that both have, by all boxes (F1), and how far those cover each other."""
    overlaps: list[float] = []
    count = 0
    for one, other in zip(found, expected, strict=True):
        left = list(other)
        count += len(one) + len(other)
        for box in one:
            best = max(left, key=lambda each: _overlap(box.box, each.box), default=None)
            if best is not None and best.label == box.label and _overlap(box.box, best.box) >= OVERLAP:
                overlaps.append(_overlap(box.box, best.box))
                left.remove(best)
    agreement = round(2 * len(overlaps) / count, 5) if count else 1.0
    return {"box_agreement": agreement, "mean_iou": _mean(overlaps), "boxes": float(sum(map(len, expected)))}


def _overlap(one: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of (x, y, width, height)."""
    width, height = (
        max(0.0, min(one[i] + one[i + 2], other[i] + other[i + 2]) - max(one[i], other[i])) for i in (0, 1)
    )
    shared = width * height
    return shared / (one[2] * one[3] + other[2] * other[3] - shared) if shared else 0.0
