"""A loaded bundle that answers samples: images, vectors, and the readings of a wind turbine."""

import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from edgeml.errors import BackendError, BundleError
from edgeml.messages import Anomaly, Source
from edgeml.models import Bundle
from edgeml.onnx_session import first_line
from edgeml.turbine import FEATURES, Statistics, TurbineFeatures, errors
from inferencer.config import Pipeline
from inferencer.decoders import Wanted, decoder_of
from inferencer.fitting import Output, plan, table
from inferencer.preprocess import Array, Geometry, Preprocessor
from inferencer.sample import Outcome, Sample, Timer, following, ordered, vector

if TYPE_CHECKING:
    import onnxruntime as ort

DEFAULT_THRESHOLD = 0.3
SHAPE = [len(FEATURES), 10, 10]  # of a window: turbine.TurbineFeatures


class Runner(Protocol):
    """One loaded bundle; swapped as a whole."""

    bundle: Bundle

    def infer(self, sample: Sample) -> Outcome | None: ...

    def rehearse(self) -> None:
        """One whole inference on zeros, from preparation to results. Raises BackendError if the parts do not fit."""

    def follow(self, earlier: "Runner | None") -> Self:
        """Take over what an earlier version has gathered, if anything; the pipeline's thread calls it once."""


class _Session:
    """An ONNX Runtime session and the names of the outputs that are asked for."""

    def __init__(self, bundle: Bundle, session: "ort.InferenceSession") -> None:
        self._bundle, self._session = bundle, session
        self.kinds = {output.name: str(output.type) for output in session.get_outputs()}
        self.names = list(self.kinds)

    def run(self, tensor: Array) -> dict[str, Any]:
        try:
            outputs: Sequence[Any] = self._session.run(self.names, {self._bundle.manifest.input.name: tensor})
        except Exception as error:  # onnxruntime's exceptions share no base class of their own
            raise BackendError(f"{self._bundle.ref.name}: {first_line(error)}") from error
        return dict(zip(self.names, outputs, strict=True))

    def outputs(self, samples: Sequence[Array]) -> list[Output]:
        """What the model gives for the first sample, and for those of the others that it takes."""
        answers = [self.run(samples[0])]
        for tensor in samples[1:]:
            with contextlib.suppress(BackendError):
                answers.append(self.run(tensor))
        ends = self._bundle.graph.ends
        return [
            Output(name, kind, tuple(answer[name] for answer in answers), ends.get(name, ""))
            for name, kind in self.kinds.items()
        ]


class DecodingRunner:
    """Images and vectors: prepare, run, decode as model.json says. Raises BundleError where that does not fit."""

    def __init__(self, bundle: Bundle, session: "ort.InferenceSession", pipeline: Pipeline) -> None:
        self.bundle, self._session = bundle, _Session(bundle, session)
        manifest = bundle.manifest
        own = manifest.thresholds.get("score", manifest.output.parameters.get("threshold", DEFAULT_THRESHOLD))
        threshold = pipeline.score_threshold or float(own if isinstance(own, float | int) else own[0])
        self._wanted = Wanted(threshold, pipeline.top_k)
        try:
            self._preprocess = None if manifest.input.layout == "tensor" else Preprocessor(manifest.input)
        except ValueError as error:
            raise BundleError(f"{bundle.path}: model.json and model.onnx do not fit: {error}") from error
        self._count = int(np.prod(manifest.input.shape))
        self._features = _features(bundle, self._count)
        tried = [self._tensor(sample)[0] for sample in (self._zeros(), self._noise())]
        self._plan = plan(bundle, self._session.outputs(tried))
        self._session.names = list(self._plan.names)
        self._decode = decoder_of(bundle)

    def infer(self, sample: Sample) -> Outcome | None:
        timer = Timer()
        tensor, geometry = self._tensor(sample)
        if not sample.valid():
            return None
        timer.lap("preprocess")
        outputs = self._session.run(tensor)
        timer.lap("inference")
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
        return Outcome(self.bundle.manifest.task, self.bundle.ref, results, timer, backend="onnx")

    def rehearse(self) -> None:
        self.infer(self._zeros())

    def follow(self, earlier: Runner | None) -> Self:
        return self

    def _zeros(self) -> Sample:
        data = np.zeros((64, 64, 3), np.uint8) if self._preprocess else [0.0] * self._count
        return Sample(data, Source(), time.monotonic_ns(), "bgr24")

    def _noise(self) -> Sample:
        """Something in place of nothing: on zeros alone, scores look like probabilities too easily."""
        random = np.random.default_rng(0)
        if self._preprocess:
            return Sample(random.integers(0, 256, (64, 64, 3), np.uint8), Source(), time.monotonic_ns(), "bgr24")
        integers = "int" in self.bundle.manifest.input.dtype
        values = random.integers(0, 100, self._count) if integers else random.standard_normal(self._count)
        return Sample([float(value) for value in values], Source(), time.monotonic_ns())

    def _tensor(self, sample: Sample) -> tuple[Array, Geometry]:
        if self._preprocess is None:
            declared = self.bundle.manifest.input
            numbers = ordered(sample.values, self._features, self._count)
            return vector(numbers, declared.dtype).reshape(1, *declared.shape), Geometry(0, 0)
        image = sample.image
        try:
            return self._preprocess(image, sample.pixel_format)
        except Exception as error:
            raise BackendError(f"image {image.shape} {image.dtype} cannot be prepared: {error!r}") from error


def _features(bundle: Bundle, count: int) -> list[str]:
    """The names of the numbers, in order, where model.json gives them. Raises BundleError."""
    names = bundle.manifest.output.parameters.get("features", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BundleError(f"{bundle.path}: output.parameters.features must be a list of names, found {names!r}")
    if names and bundle.manifest.input.layout == "tensor" and len(names) != count:
        raise BundleError(f"{bundle.path}: {len(names)} features are named, the input takes {count}")
    return names


class TurbineRunner:
    """The autoencoder of a wind turbine: every reading is kept, a verdict is given every so often.

    A verdict compares each feature's mean absolute error of reconstruction with the bundle's thresholds (`mae`).
    """

    def __init__(self, bundle: Bundle, session: "ort.InferenceSession", pipeline: Pipeline) -> None:
        self.bundle, self._session = bundle, _Session(bundle, session)
        thresholds = bundle.manifest.thresholds.get("mae")
        if not isinstance(thresholds, list) or len(thresholds) != len(FEATURES):
            raise BundleError(f"{bundle.path}: thresholds.mae must be {len(FEATURES)} numbers, found {thresholds}")
        if bundle.manifest.input.shape != SHAPE:
            raise BundleError(f"{bundle.path}: input.shape must be {SHAPE}, found {bundle.manifest.input.shape}")
        self._thresholds = thresholds
        self._statistics = Statistics.of(bundle)
        self._features = TurbineFeatures(self._statistics)
        self._session.names = [self._reconstruction()]
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
        if not np.isfinite(found).all():
            raise BackendError(f"{self.bundle.ref.name}: errors of reconstruction are not finite: {found.tolist()}")
        results = Anomaly(
            anomalies=[bool(value > limit) for value, limit in zip(found, self._thresholds, strict=True)],
            values=[round(float(value), 6) for value in found],
            thresholds=self._thresholds,
        )
        timer.lap("postprocess")
        return Outcome("anomaly", self.bundle.ref, results, timer, backend="onnx")

    def _reconstruction(self) -> str:
        """The output that has the input's shape; the first, or the one that model.json names. Raises BundleError."""
        expected = (2, *self.bundle.manifest.input.shape)
        outputs, named = self._session.outputs([np.zeros(expected, np.float32)]), self.bundle.manifest.output.name
        for output in outputs:
            if output.floats and output.shape == expected and named in ("", output.name):
                return output.name
        there = ", ".join(map(str, outputs))
        what = f"expected {named or 'float'} {list(expected)}, like the input"
        raise BundleError(f"{self.bundle.model}: decoder anomaly cannot read the outputs: {what}; there is {there}")

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
