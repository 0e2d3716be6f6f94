"""Does a decoder fit what a model gives? Decided once, when a bundle is loaded, by name, type, shape and values.

Each fit looks at the outputs of a few samples, and says which of them the decoder reads and with what parameters, or
refuses in one sentence: what was expected, what is there.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeml.errors import BundleError
from edgeml.models import Bundle
from inferencer.preprocess import Array

CHANCES = frozenset({"Softmax", "Sigmoid", "HardSigmoid"})  # operators whose values are probabilities already
SLACK = 1e-3  # of a probability in half precision
KEYPOINTS = 51  # 17 of x, y and visibility: the pose models of COCO
MASKS = 32  # coefficients per box of the common segmentation models


@dataclass(frozen=True)
class Output:
    """What a model gave under one name. `kind` is ONNX Runtime's type, `values` holds one value per sample."""

    name: str
    kind: str
    values: tuple[Any, ...]
    end: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        return np.shape(self.values[0]) if self.kind.startswith("tensor") else ()

    @property
    def floats(self) -> bool:
        return self.kind in ("tensor(float)", "tensor(float16)", "tensor(double)")

    def __str__(self) -> str:
        if self.kind.startswith("tensor"):
            return f"{self.name} {self.kind[7:-1]} {list(self.shape)}"
        return f"{self.name} {self.kind}"


@dataclass(frozen=True)
class Plan:
    """Which outputs are asked for, and what the decoder is told. `keys` orders an output that is a map of scores."""

    names: tuple[str, ...]
    parameters: Mapping[str, Any]
    keys: tuple[Any, ...] = ()


def plan(bundle: Bundle, outputs: Sequence[Output]) -> Plan:
    """How the bundle's decoder reads these outputs. Raises BundleError, also for a decoder that there is not."""
    declared = bundle.manifest.output
    try:
        fit = FITS[declared.decoder]
    except KeyError as error:
        raise BundleError(
            f"{bundle.path}: no decoder {declared.decoder!r}, there are {', '.join(FITS)}, anomaly"
        ) from error
    try:
        return fit(_named(declared.name, outputs), bundle.labels, declared.parameters)
    except Misfit as error:
        there = ", ".join(map(str, outputs)) or "nothing"
        raise BundleError(
            f"{bundle.model}: decoder {declared.decoder} cannot read the outputs: {error}; there is {there}"
        ) from error


class Misfit(Exception):  # noqa: N818  (becomes the middle of a sentence)
    """What was expected, and what the outputs look like instead."""


def _named(name: str, outputs: Sequence[Output]) -> Sequence[Output]:
    if not name:
        return outputs
    found = [output for output in outputs if output.name == name]
    if not found:
        raise Misfit(f"expected an output {name!r}, as output.name says")
    return found


# --- classification ---


def _softmax(outputs: Sequence[Output], labels: Sequence[str], parameters: Mapping[str, Any]) -> Plan:
    wanted = len(labels)
    apply = parameters.get("apply_softmax")
    if not isinstance(apply, bool | None):
        raise Misfit(f"expected true or false as apply_softmax, found {apply!r}")
    counts = [(output, _scores(output)) for output in outputs]
    fitting = [output for output, count in counts if count and count in (wanted, wanted or count)]
    if not fitting:
        expected = f"expected one score for each of {wanted} labels" if wanted else "expected [1, n] scores"
        raise Misfit(expected + _almost([count for _, count in counts], wanted))
    output = fitting[0]
    keys = _keys(output, labels) if not output.kind.startswith("tensor") else ()
    if apply is None:
        apply = not _probabilities(output, keys)
    if apply and _scores(output) == 1:
        raise Misfit(
            "expected two scores or more, or one that ends in Sigmoid, since softmax makes 1.0 of any one score"
        )
    return Plan((output.name,), {**parameters, "apply_softmax": apply}, keys)


def _scores(output: Output) -> int:
    """How many class scores an output holds for one sample; 0 if it holds anything else."""
    if output.kind.startswith("seq(map("):
        return len(output.values[0][0]) if len(output.values[0]) == 1 else 0
    shape = output.shape
    numbers = output.floats or output.kind in ("tensor(uint8)", "tensor(int8)")
    flat = sum(side != 1 for side in shape) <= 1 and (len(shape) < 2 or shape[0] == 1)
    return math.prod(shape) if numbers and flat else 0


def _almost(counts: Sequence[int], wanted: int) -> str:
    for count in filter(None, counts):
        if wanted and count == wanted + 1:
            return f", found {count}, one more: a background class, which has to stand first among the labels?"
        if wanted:
            return f", found {count}"
    return ""


def _keys(output: Output, labels: Sequence[str]) -> tuple[Any, ...]:
    """The keys of a map of scores in the labels' order: by name if they are names, else by their own order."""
    found = sorted(output.values[0][0])
    if not found or not isinstance(found[0], str):
        return tuple(found)
    if set(found) != set(labels):
        raise Misfit(f"expected scores of the labels, found those of {', '.join(found)[:80]}")
    return tuple(labels)


def _probabilities(output: Output, keys: Sequence[Any]) -> bool:
    """Whether the scores are probabilities: by the operator that ends the graph, or because they look like it."""
    if output.end in CHANCES and output.floats:
        return True
    rows = [np.asarray(table(value, keys), np.float64).reshape(-1) for value in output.values]
    return all(
        row.size > 1 and row.min() >= -SLACK and row.max() <= 1 + SLACK and abs(row.sum() - 1) < 10 * SLACK
        for row in rows
    )


# --- numbers ---


def _regression(outputs: Sequence[Output], labels: Sequence[str], parameters: Mapping[str, Any]) -> Plan:
    numeric = ("tensor(int64)", "tensor(int32)")
    single = [output for output in outputs if output.kind.startswith("tensor") and math.prod(output.shape) == 1]
    floats, integers = [o for o in single if o.floats], [o for o in single if o.kind in numeric]
    if not (floats or integers):
        raise Misfit("expected one number")
    return Plan(((floats or integers)[0].name,), parameters)


# --- boxes ---


def _centerface(outputs: Sequence[Output], labels: Sequence[str], parameters: Mapping[str, Any]) -> Plan:
    _number(parameters, "stride", 1, 256)
    _number(parameters, "nms", 0, 1)
    by_name = {output.name: output for output in outputs}
    channels = {"heatmap": 1, "scale": 2, "offset": 2, "landmarks": 10}
    sides = {by_name[name].shape[2:] for name in channels if name in by_name}
    right = all(
        name in by_name and by_name[name].floats and by_name[name].shape[:2] == (1, count)
        for name, count in channels.items()
    )
    if not right or len(sides) != 1 or len(next(iter(sides))) != 2:
        raise Misfit(f"expected {', '.join(f'{name} [1, {count}, h, w]' for name, count in channels.items())}")
    return Plan(tuple(channels), parameters)


def _yolo(outputs: Sequence[Output], labels: Sequence[str], parameters: Mapping[str, Any]) -> Plan:
    _number(parameters, "nms", 0, 1)
    layout = parameters.get("layout")
    if layout not in (None, "v5", "v8"):
        raise Misfit(f"expected v5 or v8 as layout, found {layout!r}")
    if len(outputs) > 1 and any(len(output.shape) == 4 for output in outputs):
        raise Misfit("expected boxes alone, this is a segmentation model")
    tables = [output for output in outputs if output.floats and len(output.shape) == 3 and output.shape[0] == 1]
    refused = Misfit("expected [1, n, 5 + classes] (v5) or [1, 4 + classes, n] (v8)")
    for output in tables:
        try:
            return Plan((output.name,), {**parameters, "layout": _read_as(output, len(labels), layout)})
        except Misfit as error:
            refused = error if output is tables[0] else refused
    raise refused


def _read_as(output: Output, classes: int, named: str | None) -> str:
    layout = _layout(output.shape, classes, named)
    for value in output.values:
        scores = value[0, 4:] if layout == "v8" else value[0, :, 4:]
        if scores.size and not (scores.min() >= -SLACK and scores.max() <= 1 + SLACK):
            low, high = float(scores.min()), float(scores.max())
            raise Misfit(f"expected scores from 0 to 1, found {low:.4g} to {high:.4g} in their place ({layout})")
    return layout


def _layout(shape: tuple[int, ...], classes: int, named: str | None) -> str:
    """Which layout a table [1, rows, columns] has. Raises Misfit where none fits, or several and none is named."""
    _, rows, columns = shape
    if not rows or not columns:
        raise Misfit("expected boxes, found an empty output")
    fits = {
        "v5": columns == 5 + classes if classes else columns > 5,
        "v8": rows == 4 + classes if classes else rows > 4,
    }
    if not classes and named is None:  # there are more boxes than numbers for each
        fits = {"v5": fits["v5"] and rows >= columns, "v8": fits["v8"] and columns >= rows}
    possible = [name for name, fit in fits.items() if fit and named in (None, name)]
    suppressed = columns == 6 and named is None  # x, y, x, y, score, class
    if len(possible) == 1 and not suppressed:
        return possible[0]
    if possible:
        others = " and ".join([*possible, *(["boxes after suppression, which have no decoder"] if suppressed else [])])
        raise Misfit(f"expected layout to be named in output.parameters, since {others} have this shape")
    counts = (f"{5 + classes}", f"{4 + classes}") if classes else ("5 + classes", "4 + classes")
    sizes = {"v5": f"[1, n, {counts[0]}] (v5)", "v8": f"[1, {counts[1]}, n] (v8)"}
    expected = (sizes[named] if named else " or ".join(sizes.values())) + (f" for {classes} labels" if classes else "")
    raise _unreadable(f"expected {expected}", rows, columns, classes, suppressed)


def _unreadable(expected: str, rows: int, columns: int, classes: int, suppressed: bool) -> Misfit:
    """What the table may be instead, by how many numbers a box has too many."""
    kinds = {1: "rotated boxes (OBB)", MASKS: "masks (segmentation)", KEYPOINTS: "keypoints (pose)"}
    more = (rows - 4 - classes, columns - 5 - classes) if classes else ()
    if suppressed:
        return Misfit(f"{expected}, this looks like boxes after suppression, which have no decoder")
    if what := next((kinds[extra] for extra in more if extra in kinds), ""):
        return Misfit(f"{expected}, this looks like {what}, which have no decoder")
    return Misfit(expected)


def _number(parameters: Mapping[str, Any], name: str, low: float, high: float) -> None:
    value = parameters.get(name, low)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise Misfit(f"expected {low} to {high} as {name}, found {value!r}")


Fit = Callable[[Sequence[Output], Sequence[str], Mapping[str, Any]], Plan]
FITS: dict[str, Fit] = {"softmax": _softmax, "centerface": _centerface, "yolo": _yolo, "regression": _regression}


def table(value: Any, keys: Sequence[Any]) -> Array:
    """An output as an array [1, n] or as it is: the scores of a map in the order of `keys`. Raises LookupError."""
    return np.array([[value[0][key] for key in keys]], np.float32) if keys else value
