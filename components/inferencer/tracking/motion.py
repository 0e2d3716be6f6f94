"""Where boxes will be: constant velocity, seen through noise."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

SEEN = 0.05  # standard deviation of a detected edge, as a fraction of the box' longer side
PUSH = 0.25  # of what changes a velocity, in sizes per second and root of a second
FIRST = 1.0  # of an unknown velocity, in sizes per second
STEADY_S = 0.3  # a change of size goes on for about so long


class Motion:
    """Kalman filters of n boxes, four each: centre x, centre y, width, height, and how fast each changes.

    The four are independent of each other, so all matrices are 2 x 2 and worked out for all boxes at once. Noise is a
    fraction of the box' size, its longer side. Positions in pixels, times in seconds.
    """

    def __init__(self) -> None:
        self.at = np.zeros((0, 4))
        self.speed = np.zeros((0, 4))
        self._pp, self._pv, self._vv = (np.zeros((0, 4)) for _ in range(3))  # variances of both, and between them

    def __len__(self) -> int:
        return len(self.at)

    def add(self, boxes: Array) -> None:
        """New ones at `boxes` [n, 4]: centre x, centre y, width, height."""
        size = _size(boxes)
        still = np.array([1.0, 1.0, 0.2, 0.2])
        self.at = np.concatenate([self.at, boxes])
        self.speed = np.concatenate([self.speed, np.zeros_like(boxes)])
        self._pp = np.concatenate([self._pp, np.broadcast_to((2 * SEEN * size) ** 2, boxes.shape)])
        self._pv = np.concatenate([self._pv, np.zeros_like(boxes)])
        self._vv = np.concatenate([self._vv, (FIRST * size * still) ** 2])

    def keep(self, which: Array) -> None:
        self.at, self.speed = self.at[which], self.speed[which]
        self._pp, self._pv, self._vv = self._pp[which], self._pv[which], self._vv[which]

    def predict(self, seconds: float) -> None:
        """To `seconds` later."""
        push = (PUSH * _size(self.at) * np.array([1.0, 1.0, 0.3, 0.3])) ** 2
        self.at = self.at + self.speed * seconds
        self.at[:, 2:] = np.maximum(self.at[:, 2:], 1.0)
        self._pp = self._pp + 2 * seconds * self._pv + seconds**2 * self._vv + push * seconds**3 / 3
        self._pv = self._pv + seconds * self._vv + push * seconds**2 / 2
        self._vv = self._vv + push * seconds
        fading = np.exp(-seconds / STEADY_S)
        self.speed[:, 2:] *= fading
        self._pv[:, 2:] *= fading
        self._vv[:, 2:] *= fading**2

    def correct(self, which: Array, boxes: Array) -> None:
        """`which` of them were seen at `boxes` [len(which), 4]."""
        variance = self._pp[which] + (SEEN * _size(self.at[which])) ** 2
        gain_p, gain_v = self._pp[which] / variance, self._pv[which] / variance
        off = boxes - self.at[which]
        self.at[which] += gain_p * off
        self.speed[which] += gain_v * off
        self._vv[which] -= gain_v * self._pv[which]
        self._pv[which] *= 1 - gain_p
        self._pp[which] *= 1 - gain_p

    def spread(self) -> Array:
        """Standard deviations [n, 4] of where they are expected to be seen."""
        return np.sqrt(self._pp + (SEEN * _size(self.at)) ** 2)


def _size(boxes: Array) -> Array:
    """The longer sides [n, 1], in pixels."""
    return np.asarray(np.maximum(boxes[:, 2:3], boxes[:, 3:4]).clip(1.0))
