"""What tests ask of weights in INT8."""

from typing import Any

import numpy as np


def largest_pair(weights: Any) -> int:
    """The most that two weights of one sign add up to, in any channel of an array (channels, ...)."""
    channels = weights.astype(int).reshape(len(weights), -1)
    return max(int(np.sort(np.maximum(each, 0), axis=1)[:, -2:].sum(axis=1).max()) for each in (channels, -channels))
