"""A picture in overlapping tiles, for objects that are too small in the whole: each is asked, answers are merged."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from edgeml.messages import Detection
from inferencer.sample import MAX_BOXES, Array

OVERLAP = 0.2  # of a tile's side that it shares with its neighbour: an object up to that size is whole in one of them
SAME = 0.5  # intersection over union of one object, seen twice
INSIDE = 0.6  # of its own area that a part of an object, cut off by an edge, shares with the whole
EDGE = 2.0  # pixels from an edge of a tile: a box that comes so near is cut off by it

MOST = 4 * MAX_BOXES  # boxes of all tiles that are compared, best first: where tiles overlap an object has four

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of a picture, in pixels; `cut` are the edges that are none of the picture: left, top, right, bottom."""

    x: int
    y: int
    width: int
    height: int
    cut: tuple[bool, bool, bool, bool]

    def cuts(self, box: Box) -> bool:
        """Whether a box, in pixels of the tile, ends at an edge beyond which the picture goes on."""
        x, y, width, height = box
        near = (x <= EDGE, y <= EDGE, x + width >= self.width - EDGE, y + height >= self.height - EDGE)
        return any(cut and is_near for cut, is_near in zip(self.cut, near, strict=True))


def tiles(width: int, height: int, columns: int, rows: int) -> list[Tile]:
    """The whole picture, and columns x rows tiles of it that overlap and cover it."""
    across, down = _spans(width, columns), _spans(height, rows)
    parts = [
        Tile(x, y, right - x, bottom - y, (x > 0, y > 0, right < width, bottom < height))
        for y, bottom in down
        for x, right in across
    ]
    return [Tile(0, 0, width, height, (False,) * 4), *(parts if len(parts) > 1 else [])]


def _spans(length: int, count: int) -> list[tuple[int, int]]:
    size = min(length, math.ceil(length / (count - (count - 1) * OVERLAP)))
    step = (length - size) / max(1, count - 1)
    return [(round(index * step), min(length, round(index * step) + size)) for index in range(count)]


def merged(seen: Sequence[tuple[Tile, Sequence[Detection]]]) -> list[Detection]:
    """The detections of all tiles in pixels of the picture, each object once, at most MAX_BOXES, best first.

    Of two boxes with one label that are much the same the better one stays; one that a tile's edge cuts off goes where
    most of it lies in another, which is then as sure as it was.
    """
    found = [(tile.cuts(one.box), _moved(one, tile.x, tile.y)) for tile, several in seen for one in several]
    found = sorted(found, key=lambda pair: -pair[1].score)[:MOST]
    found.sort(key=lambda pair: pair[0])  # whole ones first
    boxes = np.array([one.box for _, one in found], float).reshape(-1, 4)
    cut = np.array([is_cut for is_cut, _ in found], bool)
    scores = np.array([one.score for _, one in found], float)
    labels = np.unique([one.label for _, one in found], return_inverse=True)[1]
    there = np.ones(len(found), bool)
    for index in range(len(found)):
        if there[index]:
            rest = slice(index + 1, None)
            twice = there[rest] & (labels[rest] == labels[index]) & _twice(boxes[rest], cut[rest], boxes[index])
            scores[index] = max(scores[index], scores[rest][twice].max(initial=0.0))
            there[rest] &= ~twice
    best = [msgspec.structs.replace(found[index][1], score=float(scores[index])) for index in np.flatnonzero(there)]
    return sorted(best, key=lambda one: -one.score)[:MAX_BOXES]


def _twice(boxes: Array, cut: Array, other: Array) -> Array:
    """Which of `boxes` [n, 4] show what `other` [4] shows."""
    near = np.minimum(boxes[:, :2] + boxes[:, 2:], other[:2] + other[2:]) - np.maximum(boxes[:, :2], other[:2])
    both, own, theirs = np.clip(near, 0, None).prod(axis=1), boxes[:, 2:].prod(axis=1), other[2:].prod()
    return np.asarray((both > SAME * (own + theirs - both)) | (cut & (both > INSIDE * own)))


def _moved(one: Detection, x: int, y: int) -> Detection:
    if not x and not y:
        return one
    left, top, width, height = one.box
    return msgspec.structs.replace(
        one,
        box=(round(left + x, 1), round(top + y, 1), width, height),
        landmarks=[(round(px + x, 1), round(py + y, 1)) for px, py in one.landmarks],
        outlines=[[(round(px + x, 1), round(py + y, 1)) for px, py in outline] for outline in one.outlines],
    )
