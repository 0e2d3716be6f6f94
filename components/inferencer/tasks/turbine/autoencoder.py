"""The autoencoder of a wind turbine."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeml.bundle import Bundle
from edgeml.errors import BackendError, BundleError
from edgeml.messages import Anomaly
from edgeml.pace import following
from edgeml.turbine import FEATURES, Statistics, TurbineFeatures, errors
from inferencer.sample import Outcome, Sample, Timer
from inferencer.tasks.runner import NO_IMAGE, Runner, Session

if TYPE_CHECKING:
    import onnxruntime as ort

    from inferencer.parts import Pipeline

SHAPE = [len(FEATURES), 10, 10]  # of a window: TurbineFeatures


@dataclass
class Memory:
    """Readings so far, and when the next verdict is due, on the monotonic clock."""

    readings: TurbineFeatures
    due: float = 0.0


class TurbineRunner(Runner):
    """The autoencoder of a wind turbine: every reading is kept, a verdict is given every so often.

    A verdict compares each feature's mean absolute error of reconstruction with the bundle's thresholds (`mae`).
    """

    def __init__(self, bundle: Bundle, session: ort.InferenceSession, pipeline: Pipeline) -> None:
        self.bundle, self._session = bundle, Session(bundle, session)
        thresholds = bundle.manifest.thresholds.get("mae")
        if not isinstance(thresholds, list) or len(thresholds) != len(FEATURES):
            raise BundleError(f"{bundle.path}: thresholds.mae must be {len(FEATURES)} numbers, found {thresholds}")
        if bundle.manifest.input.shape != SHAPE:
            raise BundleError(f"{bundle.path}: input.shape must be {SHAPE}, found {bundle.manifest.input.shape}")
        self._thresholds = thresholds
        self._statistics = Statistics.of(bundle)
        self.memory: Memory = Memory(TurbineFeatures(self._statistics))
        self._session.names = [self._reconstruction()]
        self._every_s = pipeline.verdict_every_s

    def infer(self, sample: Sample) -> Outcome | None:
        timer = Timer()
        values = sample.values
        if isinstance(values, dict):
            raise BackendError("a turbine reading is a list of numbers, got named ones")
        memory = self.memory
        memory.readings.push(values)  # type: ignore[arg-type]
        if time.monotonic() < memory.due or not memory.readings.ready:
            return None
        memory.due = following(memory.due, self._every_s)
        windows = memory.readings.windows()
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
            features=list(FEATURES),
        )
        timer.lap("postprocess")
        return Outcome("anomaly", self.bundle.ref, results, timer, backend="onnx")

    def _reconstruction(self) -> str:
        """The output that has the input's shape; the first, or the one that model.json names. Raises BundleError."""
        expected = (2, *self.bundle.manifest.input.shape)
        outputs, named = (
            self._session.outputs([(np.zeros(expected, np.float32), NO_IMAGE)]),
            self.bundle.manifest.output.name,
        )
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

    def follow(self, memory: object) -> None:
        """Readings of the last minutes are as good for the new version as for the old one."""
        if isinstance(memory, Memory):
            self.memory = memory
            memory.readings.statistics = self._statistics
