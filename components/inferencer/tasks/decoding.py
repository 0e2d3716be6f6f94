"""Images and vectors: prepare, run, decode. A decoder is a function of the named outputs."""

from __future__ import annotations

import ast
import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml.bundle import MAX_LABELS_BYTES, Bundle
from edgeml.errors import BackendError, BundleError
from edgeml.messages import SampleRef
from inferencer.parts import lowest
from inferencer.preprocess import Array, Geometry, Preprocessor, spare
from inferencer.sample import Outcome, Sample, Timer, ordered
from inferencer.tasks.outputs import Fit, plan, table
from inferencer.tasks.runner import NO_IMAGE, WHOLE, Runner, Session
from inferencer.tasks.tiling import merged, tiles

if TYPE_CHECKING:
    import onnxruntime as ort

    from inferencer.parts import Pipeline

DEFAULT_THRESHOLD = 0.3
EXACT = 2**53  # the largest whole number up to which a float64 holds all


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the pipeline asks of a decoder: the lowest score, and how many labels of a classification."""

    threshold: float
    top_k: int


Outputs = Mapping[str, Array]
Decoder = Callable[[Outputs, Geometry, Sequence[str], Wanted, Mapping[str, Any]], Any]


class DecodingRunner(Runner):
    """Images and vectors: prepare, run, decode as model.json says. Raises BundleError where that does not fit."""

    def __init__(
        self, bundle: Bundle, session: ort.InferenceSession, pipeline: Pipeline, fit: Fit, decode: Decoder
    ) -> None:
        if not bundle.labels:
            bundle = dataclasses.replace(bundle, labels=names_in(session.get_modelmeta().custom_metadata_map))
        self.bundle, self._session = bundle, Session(bundle, session)
        manifest = bundle.manifest
        own = manifest.thresholds.get("score", manifest.output.parameters.get("threshold", DEFAULT_THRESHOLD))
        self._threshold = pipeline.score_threshold or float(own if isinstance(own, float | int) else own[0])
        self._wanted = Wanted(_least(manifest.task, pipeline, self._threshold), pipeline.top_k)
        try:
            is_image = manifest.input.layout != "tensor"
            self._preprocess = Preprocessor(manifest.input) if is_image else None
        except ValueError as error:
            raise BundleError(f"{bundle.path}: model.json and model.onnx do not fit: {error}") from error
        self._tiles = WHOLE
        self._count = int(np.prod(manifest.input.shape))
        self._features = _features(bundle, self._count)
        tried = [self._tensor(sample) for sample in (self._zeros(), self._noise())]
        self._plan = plan(bundle, self._session.outputs(tried), fit)
        self._session.names = list(self._plan.names)
        if pipeline.source.batches and not self._plan.keys and not (is_image and 0 in manifest.input.size):
            self.together = self._session.together(tried)
        self._decode = decode
        self._own = self._session.buffer()
        self._places: list[Array] = []  # tensors that have been used, to be made anew

    def look(self, max_side: int, tiles: tuple[int, int]) -> None:
        if self._preprocess is None:
            super().look(max_side, tiles)
            return
        task = self.bundle.manifest.task
        if tiles != WHOLE and task != "detection":
            raise BundleError(f"{self.bundle.path}: tiles are for detection, this is {task}")
        try:
            self._preprocess = Preprocessor(self.bundle.manifest.input, max_side)
        except ValueError as error:
            raise BundleError(f"{self.bundle.path}: {error}") from error
        self._tiles = tiles
        if tiles != WHOLE:
            self.together = 1

    def infer(self, sample: Sample) -> Outcome | None:
        timer = Timer()
        if self._tiles == WHOLE:
            results = self._answer(sample, timer)
        else:
            seen = []
            for tile in tiles(sample.image.shape[1], sample.image.shape[0], *self._tiles):
                part = sample.image[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]
                found = self._answer(dataclasses.replace(sample, data=part), timer)
                if found is None:
                    return None
                seen.append((tile, found))
            results = merged(seen)
            timer.lap("postprocess")
        return None if results is None else self._outcome(results, timer)

    def _outcome(self, results: Any, timer: Timer) -> Outcome:
        return Outcome(self.bundle.manifest.task, self.bundle.ref, results, timer, "onnx", self._threshold)

    def _answer(self, sample: Sample, timer: Timer) -> Any:
        """What the decoder makes of one picture or vector; None where it was overwritten meanwhile."""
        tensor, geometry = self._tensor(sample, spare(self._places) if self._own is None else self._own)
        if not sample.valid():
            return None
        timer.lap("preprocess")
        outputs = self._session.run(tensor, geometry)
        timer.lap("inference")
        if self._own is None:
            self._places.append(tensor)
        return self._decoded(outputs, geometry, timer)

    def infer_all(self, samples: Sequence[Sample]) -> list[Outcome | None]:
        """Those of one size in one run, where the model takes a batch."""
        if self.together == 1:
            return super().infer_all(samples)
        first = Timer()
        prepared = [self._tensor(sample) for sample in samples]
        first.lap("preprocess")
        together: dict[tuple[int, ...], list[int]] = {}
        for index, (sample, (tensor, _)) in enumerate(zip(samples, prepared, strict=True)):
            if sample.valid():
                together.setdefault(tensor.shape, []).append(index)
        answers: list[Outcome | None] = [None] * len(samples)
        for indexes in together.values():
            each = Timer(first.preprocess / len(samples))
            outputs = self._session.run(np.concatenate([prepared[index][0] for index in indexes]))
            each.lap("inference")
            each.inference /= len(indexes)
            for row, index in enumerate(indexes):
                own = {name: value[row : row + 1] for name, value in outputs.items()}
                timer = dataclasses.replace(each)
                answers[index] = self._outcome(self._decoded(own, prepared[index][1], timer), timer)
        return answers

    def _decoded(self, outputs: Outputs, geometry: Geometry, timer: Timer) -> Any:
        try:
            if self._plan.keys:
                outputs = {name: table(value, self._plan.keys) for name, value in outputs.items()}
            results = self._decode(outputs, geometry, self.bundle.labels, self._wanted, self._plan.parameters)
        except Exception as error:  # of NumPy and OpenCV, at what a model gives
            decoder = self.bundle.manifest.output.decoder
            raise BackendError(
                f"{self.bundle.ref.name}: decoder {decoder} cannot read the outputs: {error!r}"
            ) from error
        timer.lap("postprocess")
        return results

    def rehearse(self) -> None:
        self.infer(self._zeros())

    def _zeros(self) -> Sample:
        data = np.zeros((64, 64, 3), np.uint8) if self._preprocess else [0.0] * self._count
        return Sample(data, SampleRef(), time.monotonic_ns(), "bgr24")

    def _noise(self) -> Sample:
        """Something in place of nothing: on zeros alone, scores look like probabilities too easily."""
        random = np.random.default_rng(0)
        if self._preprocess:
            return Sample(random.integers(0, 256, (64, 64, 3), np.uint8), SampleRef(), time.monotonic_ns(), "bgr24")
        integers = "int" in self.bundle.manifest.input.dtype
        values = random.integers(0, 100, self._count) if integers else random.standard_normal(self._count)
        return Sample([float(value) for value in values], SampleRef(), time.monotonic_ns())

    def _tensor(self, sample: Sample, into: Array | None = None) -> tuple[Array, Geometry]:
        if self._preprocess is None:
            declared = self.bundle.manifest.input
            numbers = ordered(sample.values, self._features, self._count)
            return vector(numbers, declared.dtype).reshape(1, *declared.shape), NO_IMAGE
        image = sample.image
        try:
            return self._preprocess(image, sample.pixel_format, into)
        except Exception as error:
            raise BackendError(f"image {image.shape} {image.dtype} cannot be prepared: {error!r}") from error


def _least(task: str, pipeline: Pipeline, threshold: float) -> float:
    return lowest(pipeline, threshold) if task == "detection" else threshold


def names_in(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The labels that an exporter left in the model itself; none if there are none.

    They are `names`, a map by number or a list, written as Python or as JSON writes it.
    """
    text = metadata.get("names", "")
    if not 0 < len(text) <= MAX_LABELS_BYTES:
        return ()
    try:
        found = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return ()
    if isinstance(found, dict):
        found = [found.get(index, found.get(str(index))) for index in range(len(found))]
    return tuple(found) if isinstance(found, list) and all(isinstance(name, str) for name in found) else ()


def _features(bundle: Bundle, count: int) -> list[str]:
    """The names of the numbers, in order, where model.json gives them. Raises BundleError."""
    names = bundle.manifest.output.parameters.get("features", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BundleError(f"{bundle.path}: output.parameters.features must be a list of names, found {names!r}")
    if names and bundle.manifest.input.layout == "tensor" and len(names) != count:
        raise BundleError(f"{bundle.path}: {len(names)} features are named, the input takes {count}")
    return names


def vector(values: Sequence[float], dtype: str) -> Array:
    """Numbers as an array of `dtype`. Raises BackendError for one that it does not hold."""
    with np.errstate(over="ignore"):
        found = np.array(values, np.float64 if "int" in dtype else dtype)
    if not np.isfinite(found).all():
        raise BackendError(f"expected numbers that {dtype} holds, got {max(values, key=abs):g}")
    if "int" in dtype:
        low, high = max(int(np.iinfo(dtype).min), -EXACT), min(int(np.iinfo(dtype).max), EXACT)
        if found.size and (found.min() < low or found.max() > high):
            raise BackendError(f"expected {low} to {high}, got {found.min():g} to {found.max():g}")
        return found.round().astype(dtype)
    return found


def check(scores: Array | float) -> None:
    """Raises ValueError for what compares with nothing: it would pass for a result in which nothing was found."""
    scores = np.asarray(scores)
    # Both ends are NaN where any is, and found faster than each is asked; arrays' own methods would be slower.
    ends = np.minimum, np.maximum
    if scores.size and not all(math.isfinite(end.reduce(scores, axis=None)) for end in ends):
        raise ValueError("the model's answer is not finite")


def first(outputs: Outputs) -> Array:
    return next(iter(outputs.values()))


def label(labels: Sequence[str], index: int) -> str:
    return labels[index] if 0 <= index < len(labels) else str(index)
