"""Sequences of boxes whose tracks are known, made worse as a detector and a camera would, and how well ids were kept.

Another tracker is given the same ones by peers/trackers_reference.py.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bundles.fetch import Package, member

MOTMETRICS = Package("motmetrics", "1.4.0", "cd4d691bd787360f1cd0a2127fe8a14d0646fb2912b344a9498719e132b25738")
CLIPS = {"TUD-Campus": 25.0, "TUD-Stadtmitte": 25.0}  # and their frames per second

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Frame:
    """Boxes are [n, 4], x, y, width, height in pixels; `at` is when it was taken, in seconds."""

    at: float
    truth: Array
    ids: Array
    boxes: Array  # what a detector says of it
    scores: Array


@functools.cache
def clip(name: str) -> list[tuple[float, Array, Array]]:
    """Time, boxes and ids of each frame of a clip of MOTChallenge, labelled by hand."""
    text = member(MOTMETRICS, f"motmetrics/data/{name}/gt.txt").decode()
    rows = np.array([[float(value) for value in line.split(",")[:6]] for line in text.splitlines() if line])
    numbers = range(1, int(rows[:, 0].max()) + 1)
    found = [(number / CLIPS[name], rows[rows[:, 0] == number]) for number in numbers]
    return [(at, those[:, 2:6], those[:, 1].astype(int)) for at, those in found]


def seen(
    frames: Sequence[tuple[float, Array, Array]],
    rate: float,
    *,
    seed: int = 0,
    uneven: float = 0.0,
    dropped: float = 0.1,
    false: float = 0.03,
    jitter: float = 0.05,
    size: tuple[float, float] = (640.0, 480.0),
) -> list[Frame]:
    """What a detector makes of it at `rate` frames per second.

    Edges are off by `jitter` of the box (standard deviation), `dropped` of the boxes are missed in bursts of 0.2 s on
    average, and as many false ones as `false` of the true ones are there. With `uneven` the times between frames vary
    by so much of their mean.
    """
    random = np.random.default_rng(seed)
    missing: dict[int, float] = {}  # until when
    begins = dropped / (1 - dropped) / max(1.0, 0.2 * rate)
    found = []
    for at, truth, ids in thinned(frames, rate, uneven, random):
        names = ids.tolist()
        for one in names:
            if missing.get(one, -1.0) < at and random.random() < begins:
                missing[one] = at + random.exponential(0.2)
        there = np.array([missing.get(one, -1.0) < at for one in names], bool)
        boxes = truth[there]
        boxes = boxes + random.normal(0, jitter, boxes.shape) * boxes[:, [2, 3, 2, 3]]
        more = random.binomial(len(truth), false)
        wide = random.uniform(0.05, 0.2, (more, 1)) * size[1] * np.array([0.5, 1.0])
        wrong = np.concatenate([random.uniform(0, 1, (more, 2)) * np.array(size), wide], axis=1)
        scores = np.concatenate([random.uniform(0.7, 0.98, len(boxes)), random.uniform(0.6, 0.85, more)])
        found.append(Frame(at, truth, ids, np.concatenate([boxes, wrong]), scores))
    return found


def thinned(
    frames: Sequence[tuple[float, Array, Array]], rate: float, uneven: float, random: np.random.Generator
) -> Iterator[tuple[float, Array, Array]]:
    due = frames[0][0]
    for frame in frames:
        if frame[0] + 1e-6 >= due:
            yield frame
            due += (1 + uneven * random.uniform(-1, 1)) / rate


@functools.cache
def crowd(seed: int, people: int = 8, seconds: float = 40.0, rate: float = 25.0) -> list[tuple[float, Array, Array]]:
    """People who walk to and fro in 640 x 480, stop, turn, cross, and are hidden behind others who are nearer."""
    random = np.random.default_rng(seed)
    foot = np.stack([random.uniform(0, 640, people), random.uniform(200, 460, people)], axis=1)
    pace = random.uniform(0.3, 0.9, people) * random.choice([-1, 1], people)  # heights per second
    aside = random.normal(0, 0.05, people)
    until, stands = random.uniform(2, 8, people), np.zeros(people, bool)
    frames = []
    for number in range(int(seconds * rate)):
        at = number / rate
        for one in np.flatnonzero(until < at):  # goes on in another way, or stands
            stands[one] = not stands[one] and random.random() < 0.4
            pace[one] *= random.choice([-1, 1, 1])
            until[one] = at + random.uniform(2, 8)
        height = foot[:, 1] * 0.4
        foot[:, 0] += np.where(stands, 0, pace * height / rate)
        foot[:, 1] = np.clip(foot[:, 1] + np.where(stands, 0, aside * height / rate), 200, 460)
        pace = np.where((foot[:, 0] < -40) & (pace < 0) | (foot[:, 0] > 680) & (pace > 0), -pace, pace)
        boxes = np.stack([foot[:, 0] - 0.2 * height, foot[:, 1] - height, 0.4 * height, height], axis=1)
        there = np.flatnonzero(~_hidden(boxes) & (foot[:, 0] > -20) & (foot[:, 0] < 660))
        frames.append((at, boxes[there], there + 1))
    return frames


def _hidden(boxes: Array) -> Array:
    """Which people are behind others by more than 0.7 of them?"""
    nearer = boxes[:, 1] + boxes[:, 3] > (boxes[:, 1] + boxes[:, 3])[:, None]
    inner = _shared(boxes, boxes)
    return np.asarray((nearer & (inner > 0.7 * boxes[:, 2:].prod(-1)[:, None])).any(axis=1))


def _shared(one: Array, other: Array) -> Array:
    """What boxes have in common [n, m], in square pixels."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum((one[:, :2] + one[:, 2:])[:, None], (other[:, :2] + other[:, 2:])[None])
    width, height = np.moveaxis(np.maximum(high - low, 0), -1, 0)
    return np.asarray(width * height)


RATES = (25.0, 15.0, 8.0, 5.0, 2.5)
SEEDS = 6


def sequences(rates: Sequence[float] = RATES) -> dict[str, tuple[float, list[list[Frame]]]]:
    """All that trackers are compared by: the rate, and several times the same clip with other faults."""
    found: dict[str, tuple[float, list[list[Frame]]]] = {}
    for rate in rates:
        for uneven in (0.0, 0.4):
            how = f"{rate:g} fps{', uneven' if uneven else ''}"
            for name in CLIPS:
                frames = clip(name)
                found[f"{name} {how}"] = rate, [seen(frames, rate, seed=n, uneven=uneven) for n in range(SEEDS)]
            crowds = [seen(crowd(n), rate, seed=n, uneven=uneven) for n in range(2)]
            found[f"crowd {how}"] = rate, crowds
    return found


Follow = Callable[[list[Frame], float], list[tuple[Array, list[int]]]]


def mean_idf1(sequence: tuple[float, list[list[Frame]]], follow: Follow) -> float:
    rate, runs = sequence
    return float(np.mean([idf1(frames, follow(frames, rate)) for frames in runs]))


def overlaps(one: Array, other: Array) -> Array:
    """Intersection over union [n, m]."""
    inner = _shared(one, other)
    whole = one[:, 2:].prod(-1)[:, None] + other[:, 2:].prod(-1)[None] - inner
    return np.asarray(inner / np.maximum(whole, 1e-9))


def idf1(frames: Sequence[Frame], answers: Sequence[tuple[Array, Sequence[int]]]) -> float:
    """How well ids were kept (trackeval's IDF1 at IoU 0.5); an answer is boxes [n, 4] and the id of each."""
    from trackeval.metrics import Identity

    known = {one: number for number, one in enumerate(sorted({int(one) for frame in frames for one in frame.ids}))}
    told = {one: number for number, one in enumerate(sorted({one for _, ids in answers for one in ids}))}
    data = {
        "num_gt_ids": len(known),
        "num_tracker_ids": len(told),
        "num_gt_dets": sum(len(frame.ids) for frame in frames),
        "num_tracker_dets": sum(len(ids) for _, ids in answers),
        "gt_ids": [np.array([known[int(one)] for one in frame.ids], int) for frame in frames],
        "tracker_ids": [np.array([told[one] for one in ids], int) for _, ids in answers],
        "similarity_scores": [overlaps(frame.truth, boxes) for frame, (boxes, _) in zip(frames, answers, strict=True)],
    }
    return float(Identity({"PRINT_CONFIG": False}).eval_sequence(data)["IDF1"])
