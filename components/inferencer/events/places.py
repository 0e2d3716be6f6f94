"""Zones and lines in a picture, in fractions of its width and height."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from edgeml.errors import ConfigError

if TYPE_CHECKING:
    from edgeml.messages import Detection

Point = tuple[float, float]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Corner = tuple[Fraction, Fraction]

BEYOND = 1.0  # how far a zone reaches where it touches the picture's border: boxes end there, objects do not


class Place(msgspec.Struct, frozen=True, kw_only=True):
    labels: Annotated[tuple[str, ...], Meta(description="Classes that count here; all by default")] = ()
    min_score: Annotated[float, Meta(ge=0, le=1, description="An object counts here once its score was so high")] = 0.0
    where: Annotated[
        Literal["foot", "centre"],
        Meta(description="Where an object is: the middle of its box' foot, or its centre"),
    ] = "foot"

    def concerns(self, label: str, score: float) -> bool:
        return (not self.labels or label in self.labels) and score >= self.min_score


class Zone(Place, frozen=True, kw_only=True):
    points: Annotated[
        tuple[Corner, ...],
        Meta(min_length=3, max_length=64, description="Corners [x, y] of a polygon, in fractions of the picture"),
    ]
    dwell_s: Annotated[
        float, Meta(ge=0, le=86400, description="Seconds inside after which an object has dwelled; 0 never says so")
    ] = 0.0

    def depth(self, at: Point) -> float:
        """How far `at` is inside, negative outside, in fractions of the picture."""
        corners = [_beyond(corner) for corner in self.points]
        inside, nearest = False, math.inf
        for one, other in zip(corners, [*corners[1:], corners[0]], strict=True):
            nearest = min(nearest, _distance(at, one, other))
            if (one[1] > at[1]) != (other[1] > at[1]):
                inside ^= at[0] < one[0] + (other[0] - one[0]) * (at[1] - one[1]) / (other[1] - one[1])
        return nearest if inside else -nearest


class Line(Place, frozen=True, kw_only=True):
    points: Annotated[
        tuple[Corner, Corner],
        Meta(description="Its ends [x, y]; who crosses goes left or right, seen from the first end to the second"),
    ]

    def side(self, at: Point) -> float:
        """How far `at` is to the right of it, negative to the left, however long it is; in fractions of the picture."""
        (x, y), (u, v) = self.points
        return ((u - x) * (at[1] - y) - (v - y) * (at[0] - x)) / math.hypot(u - x, v - y)

    def crossed(self, before: Point, now: Point) -> bool:
        """Does the way from one side to the other lead over it, and not past its ends?"""
        one, other = self.side(before), self.side(now)
        part = one / (one - other) if one != other else 0.0
        x, y = before[0] + part * (now[0] - before[0]), before[1] + part * (now[1] - before[1])
        (a, b), (c, d) = self.points
        along = ((x - a) * (c - a) + (y - b) * (d - b)) / ((c - a) ** 2 + (d - b) ** 2)
        return -1e-9 <= along <= 1 + 1e-9


def position(found: Detection, size: tuple[int, int], point: str) -> Point:
    """Where an object is, in fractions of a picture of `size` (width, height) pixels."""
    x, y, w, h = found.box
    return (x + w / 2) / size[0], (y + (h if point == "foot" else h / 2)) / size[1]


def check(path: str, zones: dict[str, Zone], lines: dict[str, Line]) -> None:
    """Raises ConfigError for what can never be entered or crossed."""
    for name, zone in zones.items():
        if abs(_area(zone.points)) < 1e-6:
            raise ConfigError(f"{path}.zones.{name}.points", "expected a polygon, its corners lie on one line")
    for name, line in lines.items():
        if math.dist(*line.points) < 1e-3:
            raise ConfigError(f"{path}.lines.{name}.points", "expected two ends, they are in one place")


def _beyond(corner: Point) -> Point:
    x, y = (-BEYOND if value <= 0 else 1 + BEYOND if value >= 1 else value for value in corner)
    return x, y


def _distance(at: Point, one: Point, other: Point) -> float:
    """From a point to a stretch."""
    across, down = other[0] - one[0], other[1] - one[1]
    length = across**2 + down**2
    part = ((at[0] - one[0]) * across + (at[1] - one[1]) * down) / length if length else 0.0
    part = min(1.0, max(0.0, part))
    return math.hypot(at[0] - one[0] - part * across, at[1] - one[1] - part * down)


def _area(points: Sequence[Point]) -> float:
    return sum(a[0] * b[1] - b[0] * a[1] for a, b in zip(points, [*points[1:], points[0]], strict=True)) / 2
