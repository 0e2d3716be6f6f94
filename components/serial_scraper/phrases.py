"""The lines of Edge Impulse firmware, one by one: what a single line says. All patterns take linear time."""

import re
from typing import Any, NamedTuple

MAX_LINE = 4096  # characters; only freeform outputs and pictures have longer lines, and no pattern sees those

NUMBER = r"(?:[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?(?:nan|inf))"
_RECT = r"\[ x: (-?[0-9]{1,9}), y: (-?[0-9]{1,9}), width: ([0-9]{1,9}), height: ([0-9]{1,9}) \]\s*"

# Labels may hold blanks, colons and parentheses: a pattern takes as much label as it can, values are on the right.
_CLASS = re.compile(rf"([ \t]*)(\S.*):([ \t]+)({NUMBER})\s*")
_BOX = re.compile(rf"[ \t]+(\S.*) \(({NUMBER})\) {_RECT}")
_TRACK = re.compile(rf"[ \t]+(\S.*) \(ID ([0-9]{{1,9}})\)(?: \(({NUMBER})\))? {_RECT}")
_TRACE = re.compile(rf"[ \t]+Trace ([0-9]{{1,9}}): (.*) {_RECT}")
_COUNTER = re.compile(r"[ \t]+Counter ([0-9]{1,9}): ([0-9]{1,9})\s*")
_FLOAT = re.compile(NUMBER)

_TIME = re.compile(rf"(DSP|Classification|inference|Anomaly|anomaly|postprocessing):? ({NUMBER}) ?(ms|us)")
_TIME_NAMES = {"DSP": "dsp", "inference": "classification"}
_COUNT = re.compile(r"[0-9]{1,9}")

# What sketches print below their results, in the shape of a class.
_SUMMARIES = frozenset(
    ("time", "total", "count", "counts", "fps", "heap", "memory", "latency", "duration", "took", "returned", "ms", "us")
)


class Labelled(NamedTuple):
    """`<indent>label: value`; `tab` when a tab stands before the value."""

    indent: str
    label: str
    value: float
    tab: bool


def labelled(line: str) -> Labelled | None:
    found = _CLASS.fullmatch(line)
    return Labelled(found[1], found[2], float(found[4]), "\t" in found[3]) if found else None


def is_summary(label: str) -> bool:
    """Whether this is what a sketch says of its run, as `run_classifier returned` or `Total time (ms)`."""
    words = label.lower().replace("(", " ").replace(")", " ").split()
    return bool(words) and (
        words[0] == "run_classifier" or words == ["total"] or (words[-1] in _SUMMARIES and len(words) > 1)
    )


def timing(line: str) -> dict[str, float]:
    return {
        _TIME_NAMES.get(name, name.lower()): float(value) * (0.001 if unit == "us" else 1.0)
        for name, value, unit in _TIME.findall(line)
    }


def smoothed(text: str) -> dict[str, Any] | None:
    """What `ei_classifier_smooth_update` decided, as `idle  [ 9, 0, 0, 1, ]`: the label, how often each was seen."""
    label, bracket, rest = text.rstrip().rpartition(" [ ")
    counts = [count.strip() for count in rest.removesuffix("]").rstrip().removesuffix(",").split(",")]
    if not (bracket and label.strip() and rest.endswith("]") and all(map(_COUNT.fullmatch, counts))):
        return None
    name = label.strip()
    return {"classification": {name: 1.0}, "detected_label": name, "smoothed": [int(count) for count in counts]}


def box(boxes: list[dict[str, Any]], line: str) -> bool:
    if found := _BOX.fullmatch(line):
        label, value, *rect = found.groups()
        boxes.append({"label": label, "value": float(value), **_rect(*rect)})
    return found is not None


def track(tracks: list[dict[str, Any]], line: str) -> bool:
    """Before 2026 no score is printed; an .eim reports 1.0 for a track without one, and so do we."""
    if found := _TRACK.fullmatch(line):
        label, number, value, *rect = found.groups()
        tracks.append({"object_id": int(number), "label": label, "value": float(value or 1), **_rect(*rect)})
    return found is not None


def trace(tracks: list[dict[str, Any]], line: str) -> bool:
    if found := _TRACE.fullmatch(line):
        number, label, *rect = found.groups()
        tracks.append({"object_id": int(number), "label": label, "value": 1.0, **_rect(*rect)})
    return found is not None


def counter(counters: dict[str, int], line: str) -> bool:
    if found := _COUNTER.fullmatch(line):
        counters[found[1]] = int(found[2])
    return found is not None


def floats(values: list[float], line: str) -> bool:
    """Numbers with blanks between them; a line with anything else in it gives none."""
    words = line.split()
    if not words or not all(map(_FLOAT.fullmatch, words)):
        return False
    values.extend(map(float, words))
    return True


def _rect(x: str, y: str, width: str, height: str) -> dict[str, int]:
    return {"x": int(x), "y": int(y), "width": int(width), "height": int(height)}
