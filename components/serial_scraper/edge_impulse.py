"""Inference results in the text that Edge Impulse firmware prints, in every dialect since 2020.

A block begins with a header (`Predictions (DSP: ...)` until 2025, `Timing: DSP ...` since, a bare `Predictions:` on
Syntiant and in static runs), goes on with one or more sections, and mostly has no end mark: it ends where the next one
begins, where the firmware says what it does next, or when the port falls silent and the caller calls `flush`.
Results have the names and shapes that a Linux model (.eim) gives them in its replies.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

_NUMBER = r"[-+]?(?:[0-9]+\.?[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+|nan|inf)"
_RECT = r"\[ x: (-?[0-9]{1,9}), y: (-?[0-9]{1,9}), width: ([0-9]{1,9}), height: ([0-9]{1,9}) \]\s*"

# Labels may hold blanks, colons and parentheses: a pattern takes as much label as it can, values are on the right.
_CLASS = re.compile(rf" +(\S.*): [ \t]*({_NUMBER})\s*")
_BOX = re.compile(rf" +(\S.*) \(({_NUMBER})\) {_RECT}")
_TRACK = re.compile(rf" +(\S.*) \(ID ([0-9]{{1,9}})\)(?: \(({_NUMBER})\))? {_RECT}")
_TRACE = re.compile(rf" +Trace ([0-9]{{1,9}}): (.*) {_RECT}")
_COUNTER = re.compile(r" +Counter ([0-9]{1,9}): ([0-9]{1,9})\s*")
_FLOATS = re.compile(rf" +({_NUMBER}(?: +{_NUMBER})*)\s*")

_TIME = re.compile(rf"(DSP|Classification|inference|Anomaly|anomaly|postprocessing):? ({_NUMBER}) ?(ms|us)")
_TIME_NAMES = {"DSP": "dsp", "inference": "classification"}
_REGRESSION = re.compile(rf"Regression prediction: ({_NUMBER})\s*")
_ANOMALY = re.compile(rf"Anomaly prediction: ({_NUMBER})\s*")
_VISUAL = re.compile(rf"Visual anomaly (?:values: Mean|mean:) ({_NUMBER}),? [Mm]ax:? ({_NUMBER})\s*")
_FREEFORM = re.compile(r"Freeform output index=[0-9]+\s*")
_NAMED = re.compile(r"(Match|Detected label): (.*\S)\s*")

_SECTIONS = {
    "Classification results:": "classification",
    "Classification predictions:": "classification",
    "Regression results:": "classification",
    "Object detection results:": "bounding_boxes",
    "Object detection bounding boxes:": "bounding_boxes",
    "Visual anomaly grid results:": "visual_anomaly_grid",
    "Visual anomalies:": "visual_anomaly_grid",
    "Object tracking results:": "object_tracking",
    "Open traces:": "traces",
    "Counts:": "counters",
}
_NO_SECTION = "-"  # after a result on one line; the empty name is that of a block before its first section
_LISTS = frozenset({"bounding_boxes", "visual_anomaly_grid", "object_tracking"})

# What the firmware says before it goes on to the next inference, stops, or starts anew: no result spans these.
_END = re.compile(
    r"Taking photo|Starting inferencing|Recording|Sampling|Begin output|End output|Inferencing |Hello from|ERR:"
    r"|Failed to|Predictions \(time|Type AT\+HELP|AT\+"
)
_CHATTER = re.compile(
    r"\t|Classes:|OK\b|Loaded configuration|Compiled on|Time resizing: |time: |Using ESP-NN|Framebuffer: |-{8,}|WARN: "
    r"|Features \(|Could not determine how|    No objects found|[EWIDV] \([0-9]+\) "
    rf"|.+:\t{_NUMBER}\s*$"
)


class Block(msgspec.Struct):
    """One inference. `result` has an .eim reply's keys; `timing` is in milliseconds, empty when the dialect has none.

    Beyond an .eim's keys a result may hold `is_regression`, `counters` {number: count}, `detected_label` and `match`
    (class index).
    """

    timing: dict[str, float]
    result: dict[str, Any] = {}


class EdgeImpulseParser:
    """Incremental: give it lines as they come.

    `unknown` is called with each line that belongs to nothing, and with each error that the firmware reports.
    """

    def __init__(self, unknown: Callable[[str], None]) -> None:
        self._unknown = unknown
        self._block: Block | None = None
        self._timed = False
        self._section = ""
        self._match = ""
        self._done: list[Block] = []

    def feed(self, lines: Iterable[str]) -> list[Block]:
        """The blocks that these lines show to be complete."""
        for line in lines:
            if self._block is not None and line.startswith(" "):
                self._indented(self._block.result, line)
            else:
                self._flush_left(line)
        return self._taken()

    def flush(self) -> list[Block]:
        """What is open is complete: the port has been silent for a while, or the text ends here."""
        self._close()
        return self._taken()

    def _taken(self) -> list[Block]:
        done, self._done = self._done, []
        return done

    def _close(self) -> None:
        if self._match:
            self._done.append(Block({}, {"classification": {self._match: 1.0}}))
            self._match = ""
        if self._block is not None and self._block.result:
            self._done.append(self._block)
        self._block, self._section = None, ""

    def _open(self, timing: dict[str, float]) -> Block:
        self._close()
        self._block = Block(timing)
        self._timed = bool(timing)
        return self._block

    def _flush_left(self, line: str) -> None:
        while line.startswith("> "):  # the prompt has no line end: what follows it stands on the same line
            self._close()
            line = line[2:]
        if line.startswith(("Predictions (DSP:", "Timing: DSP")):
            self._open(_timing(line))
            self._timed = True
        elif line.startswith("Predictions:"):
            self._untimed_header()
        elif not self._section_header(line) and not self._value(line):
            if _END.match(line):
                self._close()
                if line.startswith(("ERR:", "Failed to")):
                    self._unknown(line)
            elif line.strip() and not _CHATTER.match(line):
                self._unknown(line)

    def _untimed_header(self) -> None:
        index, self._match = self._match, ""
        if index and not index.isdecimal():
            self._match, index = index, ""
        block = self._open({})
        if index:
            block.result["match"] = int(index)

    def _section_header(self, line: str) -> bool:
        title = line.rstrip()
        title = title[1:] if title.startswith("#") else title
        section = _SECTIONS.get(title)
        if section is None and not _FREEFORM.fullmatch(title):
            return False
        section = section or "freeform"
        name = "object_tracking" if section == "traces" else section
        result = self._result_without(name)
        self._section = section
        if title.endswith("Regression results:"):
            result["is_regression"] = True
        if section == "freeform":
            result.setdefault("freeform", []).append([])
        elif name in _LISTS:
            result[name] = []
        return True

    def _result_without(self, name: str) -> dict[str, Any]:
        """The result that the section `name` goes to: a new one when the open one has that section, or has no room.

        Blocks without a timing header hold one main section, so a second one tells that a new block has begun.
        """
        block = self._block
        if block is None:
            return self._open({}).result
        taken = name in block.result and name != "freeform"
        if taken or (not self._timed and name not in ("anomaly", "visual_anomaly_mean") and block.result):
            return self._open({}).result
        return block.result

    def _value(self, line: str) -> bool:
        """A result that fits on one line."""
        bare = line[1:] if line.startswith("#") else line
        if found := _REGRESSION.fullmatch(bare):
            result = self._result_without("classification")
            result["classification"], result["is_regression"] = {"value": float(found[1])}, True
        elif found := _ANOMALY.fullmatch(bare):
            self._result_without("anomaly")["anomaly"] = float(found[1])
        elif found := _VISUAL.fullmatch(bare):
            result = self._result_without("visual_anomaly_mean")
            result["visual_anomaly_mean"], result["visual_anomaly_max"] = float(found[1]), float(found[2])
        elif found := _NAMED.fullmatch(bare):
            if found[1] == "Match":
                self._close()
                self._match = found[2]
            elif self._block is not None:
                self._block.result["detected_label"] = found[2]
        else:
            return False
        self._section = _NO_SECTION
        return True

    def _indented(self, result: dict[str, Any], line: str) -> None:
        if self._section in ("", "classification"):
            known = self._class_line(result, line)
        elif self._section == "object_tracking":
            known = _track(result["object_tracking"], line)
        elif self._section == "traces":
            known = _trace(result["object_tracking"], line)
        elif self._section == "counters":
            known = _counter(result.setdefault("counters", {}), line)
        elif self._section == _NO_SECTION:
            known = False
        elif self._section == "freeform":
            known = _floats(result["freeform"][-1], line)
        else:
            known = _box(result[self._section], line)
        if not known and line.strip() and not _CHATTER.match(line):
            self._unknown(line)

    def _class_line(self, result: dict[str, Any], line: str) -> bool:
        if found := _CLASS.fullmatch(line):
            label, value = found[1], float(found[2])
            if label == "anomaly score" and not self._section:
                result["anomaly"] = value
            else:
                result.setdefault("classification", {})[label] = value
            return True
        if self._section:
            return False
        if line.startswith("    No objects found"):
            result.setdefault("bounding_boxes", [])
            return True
        boxes: list[dict[str, Any]] = []
        if _box(boxes, line):
            result.setdefault("bounding_boxes", []).extend(boxes)
        return bool(boxes)


def _timing(line: str) -> dict[str, float]:
    return {
        _TIME_NAMES.get(name, name.lower()): float(value) * (0.001 if unit == "us" else 1.0)
        for name, value, unit in _TIME.findall(line)
    }


def _rect(x: str, y: str, width: str, height: str) -> dict[str, int]:
    return {"x": int(x), "y": int(y), "width": int(width), "height": int(height)}


def _box(boxes: list[dict[str, Any]], line: str) -> bool:
    if found := _BOX.fullmatch(line):
        label, value, *rect = found.groups()
        boxes.append({"label": label, "value": float(value), **_rect(*rect)})
    return found is not None


def _track(tracks: list[dict[str, Any]], line: str) -> bool:
    """Before 2026 no score is printed; an .eim reports 1.0 for a track without one, and so do we."""
    if found := _TRACK.fullmatch(line):
        label, number, value, *rect = found.groups()
        tracks.append({"object_id": int(number), "label": label, "value": float(value or 1), **_rect(*rect)})
    return found is not None


def _trace(tracks: list[dict[str, Any]], line: str) -> bool:
    if found := _TRACE.fullmatch(line):
        number, label, *rect = found.groups()
        tracks.append({"object_id": int(number), "label": label, "value": 1.0, **_rect(*rect)})
    return found is not None


def _counter(counters: dict[str, int], line: str) -> bool:
    if found := _COUNTER.fullmatch(line):
        counters[found[1]] = int(found[2])
    return found is not None


def _floats(values: list[float], line: str) -> bool:
    if found := _FLOATS.fullmatch(line):
        values.extend(map(float, found[1].split()))
    return found is not None
