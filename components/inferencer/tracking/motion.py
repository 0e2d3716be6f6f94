"""Where boxes will be: constant velocity, seen through noise."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

SEEN = 0.05  # standard deviation of a detected edge, as a fraction of the box' longer side
PUSH = 0.25  # of what changes a velocity, in sizes per second and root of a second
FIRST = 1.0  # of an unknown velocity, in sizes per second
STEADY_S = 0.3  # a change of size goes on for about so long
PUSHED = np.array([1.0, 1.0, 0.3, 0.3])  # how much of it each of a box' four numbers gets
UNKNOWN = np.array([1.0, 1.0, 0.2, 0.2])


class Motion:
    """Kalman filters of n boxes, four each: centre x, centre y, width, height, and how fast each changes.

    The four are independent of each other, so all matrices are 2 x 2 and worked out for all boxes at once. Noise is a
    fraction of the box' size, its longer side. Positions in pixels, times in seconds.
    """

    def __init__(self) -> None:
        self._state = np.zeros((5, 0, 4))  # where, how fast, the variances of both, and that between them

    def __len__(self) -> int:
        return self._state.shape[1]

    @property
    def at(self) -> Array:
        return np.asarray(self._state[0])

    def add(self, boxes: Array) -> None:
        """New ones at `boxes` [n, 4]: centre x, centre y, width, height."""
        size, none = _size(boxes), np.zeros_like(boxes)
        new = [boxes, none, np.broadcast_to((2 * SEEN * size) ** 2, boxes.shape), (FIRST * size * UNKNOWN) ** 2, none]
        self._state = np.concatenate([self._state, new], axis=1)

    def keep(self, which: Array) -> None:
        self._state = self._state[:, which]

    def predict(self, seconds: float) -> None:
        """To `seconds` later."""
        at, speed, pp, vv, pv = self._state
        push = (PUSH * _size(at) * PUSHED) ** 2
        at += speed * seconds
        np.maximum(at[:, 2:], 1.0, out=at[:, 2:])
        pp += 2 * seconds * pv + seconds**2 * vv + push * (seconds**3 / 3)
        pv += seconds * vv + push * (seconds**2 / 2)
        vv += push * seconds
        fading = math.exp(-seconds / STEADY_S)
        speed[:, 2:] *= fading
        pv[:, 2:] *= fading
        vv[:, 2:] *= fading**2

    def correct(self, which: Sequence[int], boxes: Array) -> tuple[Array, Array]:
        """`which` of them were seen at `boxes` [len(which), 4]: where they are, and how fast, by that."""
        seen = self._state[:, which]
        at, speed, pp, vv, pv = seen
        variance = pp + (SEEN * _size(at)) ** 2
        gain_p, gain_v = pp / variance, pv / variance
        off, left = boxes - at, 1 - gain_p
        at += gain_p * off
        speed += gain_v * off
        vv -= gain_v * pv
        pv *= left
        pp *= left
        self._state[:, which] = seen
        return at, speed

    def spread(self) -> Array:
        """Standard deviations [n, 4] of where they are expected to be seen."""
        return np.asarray(np.sqrt(self._state[2] + (SEEN * _size(self.at)) ** 2))


def _size(boxes: Array) -> Array:
    """The longer sides [n, 1], in pixels."""
    return np.asarray(np.maximum(np.maximum(boxes[:, 2:3], boxes[:, 3:4]), 1.0))
