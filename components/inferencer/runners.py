"""A loaded bundle that answers samples: images, vectors, and the readings of a wind turbine."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

import cv2
import numpy as np

from edgeml.errors import BackendError, BundleError
from edgeml.messages import Anomaly, Source
from edgeml.models import Bundle
from inferencer.config import Pipeline
from inferencer.decoders import Wanted, decoder_of
from inferencer.preprocess import Array, Geometry, Preprocessor
from inferencer.sample import Outcome, Sample, Timer, following, ordered
from inferencer.turbine import FEATURES, Statistics, TurbineFeatures, errors

if TYPE_CHECKING:
    import onnxruntime as ort

DEFAULT_THRESHOLD = 0.3


class Runner(Protocol):
    """One loaded bundle; swapped as a whole."""

    bundle: Bundle

    def infer(self, sample: Sample) -> Outcome | None: ...

    def rehearse(self) -> None:
        """One whole inference on zeros, from preparation to results. Raises BackendError if the parts do not fit."""

    def follow(self, earlier: "Runner | None") -> Self:
        """Take over what an earlier version has gathered, if anything; the pipeline's thread calls it once."""


class _Session:
    """An ONNX Runtime session and the names that go with it."""

    def __init__(self, bundle: Bundle, session: "ort.InferenceSession") -> None:
        self._bundle, self._session = bundle, session
        self._names = [output.name for output in session.get_outputs()]

    def run(self, tensor: Array) -> dict[str, Array]:
        try:
            outputs: Sequence[Any] = self._session.run(self._names, {self._bundle.manifest.input.name: tensor})
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            raise BackendError(f"{self._bundle.ref.name}: {error}") from error
        return dict(zip(self._names, outputs, strict=True))


class DecodingRunner:
    """Images and vectors: prepare, run, decode as model.json says."""

    def __init__(self, bundle: Bundle, session: "ort.InferenceSession", pipeline: Pipeline) -> None:
        self.bundle, self._session = bundle, _Session(bundle, session)
        manifest = bundle.manifest
        own = manifest.thresholds.get("score", manifest.output.parameters.get("threshold", DEFAULT_THRESHOLD))
        threshold = pipeline.score_threshold or float(own if isinstance(own, float | int) else own[0])
        self._wanted = Wanted(threshold, pipeline.top_k)
        self._decode = decoder_of(bundle)
        self._preprocess = None if manifest.input.layout == "tensor" else Preprocessor(manifest.input)
        self._count = int(np.prod(manifest.input.shape))
        self._features = manifest.output.parameters.get("features", [])

    def infer(self, sample: Sample) -> Outcome | None:
        timer = Timer()
        tensor, geometry = self._tensor(sample)
        if not sample.valid():
            return None
        timer.lap("preprocess")
        outputs = self._session.run(tensor)
        timer.lap("inference")
        manifest = self.bundle.manifest
        try:
            results = self._decode(outputs, geometry, self.bundle.labels, self._wanted, manifest.output.parameters)
        except (LookupError, TypeError, ValueError, cv2.error) as error:
            decoder = manifest.output.decoder
            raise BackendError(
                f"{self.bundle.ref.name}: decoder {decoder} cannot read the outputs: {error!r}"
            ) from error
        timer.lap("postprocess")
        return Outcome(manifest.task, self.bundle.ref, results, timer, backend="onnx")

    def rehearse(self) -> None:
        data = np.zeros((64, 64, 3), np.uint8) if self._preprocess else [0.0] * self._count
        self.infer(Sample(data, Source(), time.monotonic_ns(), "bgr24"))

    def follow(self, earlier: Runner | None) -> Self:
        return self

    def _tensor(self, sample: Sample) -> tuple[Array, Geometry]:
        if self._preprocess is None:
            declared = self.bundle.manifest.input
            numbers = ordered(sample.values, self._features, self._count)
            return np.array(numbers, declared.dtype).reshape(1, *declared.shape), Geometry(0, 0)
        image = sample.image
        try:
            return self._preprocess(image, sample.pixel_format)
        except cv2.error as error:
            raise BackendError(f"image {image.shape} {image.dtype} cannot be prepared: {error}") from error


class TurbineRunner:
    """The autoencoder of a wind turbine: every reading is kept, a verdict is given every so often.

    A verdict compares each feature's mean absolute error of reconstruction with the bundle's thresholds (`mae`).
    """

    def __init__(self, bundle: Bundle, session: "ort.InferenceSession", pipeline: Pipeline) -> None:
        self.bundle, self._session = bundle, _Session(bundle, session)
        thresholds = bundle.manifest.thresholds.get("mae")
        if not isinstance(thresholds, list) or len(thresholds) != len(FEATURES):
            raise BundleError(f"{bundle.path}: thresholds.mae must be {len(FEATURES)} numbers, found {thresholds}")
        self._thresholds = thresholds
        self._statistics = Statistics.of(bundle)
        self._features = TurbineFeatures(self._statistics)
        self._every_s = pipeline.verdict_every_s
        self._due = 0.0

    def infer(self, sample: Sample) -> Outcome | None:
        timer = Timer()
        values = sample.values
        if isinstance(values, dict):
            raise BackendError("a turbine reading is a list of numbers, got named ones")
        self._features.push(values)  # type: ignore[arg-type]
        if time.monotonic() < self._due or not self._features.ready:
            return None
        self._due = following(self._due, self._every_s)
        windows = self._features.windows()
        timer.lap("preprocess")
        reconstruction = next(iter(self._session.run(windows).values()))
        timer.lap("inference")
        found = errors(windows, reconstruction)
        results = Anomaly(
            anomalies=[bool(value > limit) for value, limit in zip(found, self._thresholds, strict=True)],
            values=[round(float(value), 6) for value in found],
            thresholds=self._thresholds,
        )
        timer.lap("postprocess")
        return Outcome("anomaly", self.bundle.ref, results, timer, backend="onnx")

    def rehearse(self) -> None:
        windows = np.zeros((2, *self.bundle.manifest.input.shape), np.float32)
        found = errors(windows, next(iter(self._session.run(windows).values())))
        if found.shape != (len(FEATURES),):
            raise BackendError(f"{self.bundle.ref.name}: {found.shape} errors, expected one for each of {FEATURES}")

    def follow(self, earlier: Runner | None) -> Self:
        """Readings of the last minutes are as good for the new version as for the old one."""
        if isinstance(earlier, TurbineRunner):
            self._features, self._due = earlier._features, earlier._due
            self._features.statistics = self._statistics
        return self


def runner_of(bundle: Bundle, session: "ort.InferenceSession", pipeline: Pipeline) -> Runner:
    """The runner for a bundle's task. Raises BundleError if model.json leaves out what it needs."""
    kind = TurbineRunner if bundle.manifest.output.decoder == "anomaly" else DecodingRunner
    return kind(bundle, session, pipeline)
