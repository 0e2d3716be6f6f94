"""Following 20 objects that cross, stop and come back, for an hour of frames at 5 per second."""

import itertools
import time

import numpy as np

from benchmarks.harness import Row, percentile
from edgeml.messages import Detection
from inferencer.tracking.tracker import Tracker

OBJECTS, RATE, SECONDS, LIMIT_MS = 20, 5, 3600, 0.3


def run() -> list[Row]:
    random, tracker = np.random.default_rng(1), Tracker(itertools.count(1).__next__)
    start, pace = random.uniform(0, 1280, (OBJECTS, 2)), random.uniform(-60, 60, (OBJECTS, 2))
    taken: list[float] = []
    for number in range(SECONDS * RATE):
        at = number / RATE
        centres = np.abs((start + pace * at) % 2560 - 1280)  # to and fro
        boxes = np.concatenate([centres, np.full((OBJECTS, 2), (40, 90))], axis=1) + random.normal(0, 2, (OBJECTS, 4))
        there = random.random(OBJECTS) > 0.02
        found = [Detection("person", 0.9, (box[0], box[1], box[2], box[3])) for box in boxes[there].tolist()]
        began = time.perf_counter()
        tracker.update(found, 0.5, at, at)
        taken.append((time.perf_counter() - began) * 1e3)
    minutes = len(taken) // 60
    first, last = percentile(taken[minutes : 6 * minutes], 50), percentile(taken[-5 * minutes :], 50)
    return [
        _row("a frame with 20 objects, median", "ms", percentile(taken, 50), LIMIT_MS, "<= 0.3 ms"),
        _row("the last 5 minutes of an hour beside the first", "ms", last, first * 1.2, "<= 1.2 x"),
        _row("tracks held at the end", "", float(len(tracker.tracks)), 2.0 * OBJECTS, "<= 2 an object"),
    ]


def _row(metric: str, unit: str, value: float, limit: float, bar: str) -> Row:
    ratio = value / limit
    return Row(
        bench="tracking", metric=metric, unit=unit, value=value, limit=limit, ratio=ratio, bar=bar, ok=ratio <= 1
    )
