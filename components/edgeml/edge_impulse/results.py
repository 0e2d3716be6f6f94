"""What an Edge Impulse model says, in the words of the .eim protocol, and the payload that tells IoT Core of it.

The names follow `model_parameters` and `result` of edgeimpulse/example-standalone-inferencing-linux (eim.cpp).
"""

import statistics
from typing import Any

import msgspec

Number = int | float


class Box(msgspec.Struct, frozen=True, kw_only=True):
    """One detection, or one anomalous cell of a grid, in pixels of the model's input."""

    label: str
    value: float
    x: Number
    y: Number
    width: Number
    height: Number


class TrackedBox(Box, frozen=True, kw_only=True):
    object_id: int


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`result` of a classify reply; what the model does not compute is None.

    A regression arrives as a classification of one label whose value is no confidence; whoever knows sets
    `is_regression`.
    """

    classification: dict[str, float] | None = None
    bounding_boxes: list[Box] | None = None
    object_tracking: list[TrackedBox] | None = None
    visual_anomaly_grid: list[Box] | None = None
    visual_anomaly_max: float | None = None
    visual_anomaly_mean: float | None = None
    anomaly: float | None = None
    freeform: list[list[float]] | None = None
    is_regression: bool = False


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds of each step; whole numbers stay whole."""

    dsp: Number = 0
    classification: Number = 0
    anomaly: Number = 0
    postprocessing: Number = 0

    @property
    def total_ms(self) -> Number:
        return max(1, self.dsp + self.classification + self.anomaly + self.postprocessing)


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """`parameters` is what `get_model_info` shows: the hello reply's model_parameters, or what a firmware tells."""

    name: str = ""
    version: str = ""  # `v7`
    parameters: dict[str, Any] = {}


def confidences(result: Result) -> list[float]:
    """The values in [0, 1] that say how sure the model is: one per box, the best one of a classification.

    Empty for a regression, for freeform outputs and for anomaly scores, which have no upper bound.
    """
    if result.freeform is not None or result.visual_anomaly_grid is not None or result.is_regression:
        return []
    if result.bounding_boxes is not None:
        return [box.value for box in result.bounding_boxes]
    return [max(result.classification.values())] if result.classification else []


def mean_confidence(result: Result) -> float | None:
    """The arithmetic mean of the confidences; None when the result has none."""
    values = confidences(result)
    return statistics.fmean(values) if values else None


def content(result: Result) -> tuple[dict[str, Any], int]:
    """The payload's keys that hold the result, and how many inferences it counts for; `({}, 0)` when empty.

    One of `c`, `box`, `grid` and `freeform` as Edge Impulse's runner publishes it, then what that one leaves out.
    """
    body: dict[str, Any]
    if result.freeform is not None:
        body, count = {"freeform": result.freeform}, len(result.freeform)
    elif result.visual_anomaly_grid is not None:
        body, count = {"grid": result.visual_anomaly_grid}, len(result.visual_anomaly_grid)
    elif result.bounding_boxes is not None:
        body, count = {"box": result.bounding_boxes}, len(result.bounding_boxes)
    elif result.classification:
        body, count = {"c": result.classification}, 1
    elif result.anomaly is not None:
        body, count = {}, 1
    else:
        return {}, 0
    if not count:
        return {}, 0
    extras = {
        "tracking": result.object_tracking,
        "anomaly": result.anomaly,
        "visual_anomaly_max": result.visual_anomaly_max,
        "visual_anomaly_mean": result.visual_anomaly_mean,
    }
    return body | {key: value for key, value in extras.items() if value is not None}, count
