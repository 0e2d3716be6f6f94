"""A 720p frame to the 224x224 input tensor of an image model, beside cv2.dnn.blobFromImage."""

import time
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from benchmarks.harness import Row, interleave, percentile
from edgeml.bundle import InputTensor
from inferencer.preprocess import Preprocessor

TIMES = 100
MEAN, SCALE = 127.0, 1 / 128


def run() -> list[Row]:
    frame = np.random.default_rng(1).integers(0, 256, (720, 1280, 3), np.uint8)
    stretch = Preprocessor(InputTensor(name="x", size=(224, 224), mean=[MEAN], std=[1 / SCALE]))
    crop = Preprocessor(
        InputTensor(name="x", size=(224, 224), resize="crop", resize_shorter=256, mean=[MEAN], std=[1 / SCALE])
    )
    ways: dict[str, Callable[[], object]] = {
        "blob": lambda: cv2.dnn.blobFromImage(frame, SCALE, (224, 224), (MEAN,) * 3, swapRB=True, crop=False),
        "blob, crop": lambda: cv2.dnn.blobFromImage(frame, SCALE, (224, 224), (MEAN,) * 3, swapRB=True, crop=True),
        "stretch": lambda: stretch(frame),
        "crop": lambda: crop(frame),
    }
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # else the faster of the two is whoever finds the other core free
    try:
        figures = interleave({name: partial(_median_us, way) for name, way in ways.items()}, rounds=7)
    finally:
        cv2.setNumThreads(threads)
    # A crop is held against blobFromImage's own, which does not average the pixels it leaves out.
    return [_row("stretch", figures["stretch"], figures["blob"]), _row("crop", figures["crop"], figures["blob, crop"])]


def _median_us(work: Callable[[], object]) -> float:
    taken = []
    for _ in range(TIMES):
        began = time.perf_counter()
        work()
        taken.append((time.perf_counter() - began) * 1e6)
    return percentile(taken, 50)


def _row(name: str, value: float, limit: float) -> Row:
    ratio = value / limit
    return Row(
        bench="preprocess",
        metric=f"720p to 224, {name}",
        unit="us",
        value=value,
        limit=limit,
        ratio=ratio,
        bar="<= 1.2 x blobFromImage",
        ok=ratio <= 1.2,
    )
