"""A look for motion in a 720p and a 1080p frame, beside the least that any detector does: a small grey copy, blurred,
and its difference from the one before. Frames come from memory, as decoded ones do."""

import itertools
import time
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from benchmarks.harness import Row, interleave, percentile
from camera_capture.motion import MotionDetector, MotionSettings
from motion_support import garage

TIMES, FRAMES = 200, 8
BAR_MS = 1.0


def run() -> list[Row]:
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return [row for name, size in (("720p", (1280, 720)), ("1080p", (1920, 1080))) for row in _measured(name, size)]
    finally:
        cv2.setNumThreads(threads)


def _measured(name: str, size: tuple[int, int]) -> list[Row]:
    noise, scene = np.random.default_rng(1), cv2.resize(garage(), size)
    frames = [cv2.add(scene, noise.integers(0, 12, scene.shape, np.uint8)) for _ in range(FRAMES)]
    for number, frame in enumerate(frames):  # a thing that moves: what is found is followed up
        frame[100:300, 40 * number : 40 * number + 100] = 60
    times = itertools.count()
    detector, before = MotionDetector(MotionSettings(every_s=0), "bgr24"), [_copy(frames[0], size)]

    def look(frame: np.ndarray) -> None:
        detector.look(np.asarray(frame, np.uint8), next(times) * 0.1)

    def bare(frame: np.ndarray) -> None:
        small = _copy(frame, size)
        cv2.absdiff(small, before[0])
        before[0] = small

    figures = interleave({"look": partial(_median_ms, look, frames), "bare": partial(_median_ms, bare, frames)}, 7)
    value, limit = figures["look"], figures["bare"]
    return [
        Row(
            bench="motion",
            metric=f"a look at a {name} frame",
            unit="ms",
            value=value,
            limit=limit,
            ratio=value / limit,
            bar=f"<= {BAR_MS:g} ms" if name == "720p" else "shown",
            ok=value <= BAR_MS or name != "720p",
        )
    ]


def _copy(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    small = cv2.resize(frame, (round(100 * size[0] / size[1]), 100), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.blur(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), (3, 3)))


def _median_ms(work: Callable[[np.ndarray], None], frames: list[np.ndarray]) -> float:
    taken = []
    for frame in itertools.islice(itertools.cycle(frames), TIMES):
        began = time.perf_counter()
        work(frame)
        taken.append((time.perf_counter() - began) * 1e3)
    return percentile(taken, 50)
