"""A reading of a wind turbine to its verdict, beside bare PyWavelets and session.run on the same window.

Ours takes the reading as text, converts the quaternion, keeps the ring, denoises, cuts windows, runs the model and
compares the errors. The bare one starts with the six signals as an array and does no more than wavedec, threshold,
waverec and session.run.
"""

import time

import numpy as np
import pywt

from benchmarks.harness import Row, interleave, percentile
from edgeml import models
from edgeml.turbine import LEVELS, RING, UNIVERSAL, Statistics
from inferencer.backends.onnx import OnnxBackend
from inferencer.payloads import numbers
from inferencer.sources.topic import TopicSource
from inferencer.tasks import runner_of
from inferencer_support import pipeline, sample
from localdev.simulators.turbine import Turbine
from support import ROOT

TIMES = 300


def run() -> list[Row]:
    bundle = models.load(ROOT / "components" / "model_store" / "wind_turbine")
    session = models.open_session(bundle, threads=1)
    backend = OnnxBackend(model="WindTurbine")
    runner = runner_of(bundle, session, pipeline(backend, TopicSource(topic="t"), verdict_every_s=0))
    turbine = Turbine()
    readings = [",".join(map(str, turbine.read())).encode() for _ in range(RING + TIMES)]
    for reading in readings[:RING]:
        runner.infer(sample(numbers(reading)))
    thresholds = Statistics.of(bundle).raw_std * UNIVERSAL
    signals = np.random.default_rng(1).normal(size=(6, RING))
    windows = np.zeros((2, 6, 10, 10), np.float32)

    def ours() -> float:
        taken = []
        for reading in readings[RING:]:
            began = time.perf_counter()
            if runner.infer(sample(numbers(reading))) is None:
                raise RuntimeError("no verdict")
            taken.append((time.perf_counter() - began) * 1e6)
        return percentile(taken, 50)

    def bare() -> float:
        taken = []
        for _ in range(TIMES):
            began = time.perf_counter()
            for signal, threshold in zip(signals, thresholds, strict=True):
                levels = pywt.wavedec(signal, "db6", level=LEVELS)
                pywt.waverec([pywt.threshold(level, threshold, mode="soft") for level in levels], "db6")
            session.run(None, {"input": windows})
            taken.append((time.perf_counter() - began) * 1e6)
        return percentile(taken, 50)

    figures = interleave({"ours": ours, "bare": bare})
    ratio = figures["ours"] / figures["bare"]
    return [
        Row(
            bench="turbine",
            metric="reading to verdict p50",
            unit="us",
            value=figures["ours"],
            limit=figures["bare"],
            ratio=ratio,
            bar="<= 1.5 x PyWavelets + session.run",
            ok=ratio <= 1.5,
        )
    ]
