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

from serial_scraper import phrases
from serial_scraper.phrases import NUMBER, Labelled, labelled

_REGRESSION = re.compile(rf"Regression prediction: ({NUMBER})\s*")
_ANOMALY = re.compile(rf"Anomaly prediction: ({NUMBER})\s*")
_VISUAL = re.compile(rf"Visual anomaly (?:values: Mean|mean:) ({NUMBER}),? [Mm]ax:? ({NUMBER})\s*")
_FREEFORM = re.compile(r"Freeform output index=[0-9]+\s*")
_NAMED = re.compile(r"(Match|Detected label): (.*\S)\s*")
_INDEX = re.compile(r"[0-9]{1,9}")

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
MAX_BLOCK = 1 << 20  # characters: a board that never ends one must not fill the memory
_NO_SECTION = "-"  # after a result on one line; the empty name is that of a block before its first section
_LISTS = frozenset({"bounding_boxes", "visual_anomaly_grid", "object_tracking"})

# What the firmware says before it goes on to the next inference, stops, or starts anew: no result spans these.
_END = re.compile(
    r"Taking photo|Starting inferencing|Recording|Sampling|Begin output|End output|Inferencing |Hello from|ERR:"
    r"|Failed to|Type AT\+HELP|AT\+|run_classifier returned: "
)
_TROUBLE = re.compile(r"ERR:|Failed to|run_classifier returned: (?!0\b)")
_SETTING = re.compile(r"\t(?:Interval|Image resolution|Frame size|Sample length|No\. of classes): ")
_CHATTER = re.compile(
    rf"{_SETTING.pattern}|Classes:\s*$|OK\s*$"
    r"|Loaded configuration|Compiled on|Time resizing: |time: |Using ESP-NN|Framebuffer: |-{8,}\s*$|WARN: "
    r"|Features \(|Could not determine how|    No objects found|[EWIDV] \([0-9]+\) "
)
_DEBUG, _NAMES = "Predictions (time", "Classes:"  # an engine's own output, and a list of labels, follow these
_WHOLE = 0.98  # scores of all classes sum up to more than that
_HIGHEST = 1.001  # a score that was rounded up


class Block(msgspec.Struct):
    """One inference. `result` has an .eim reply's keys; `timing` is in milliseconds, empty when the dialect has none.

    Beyond an .eim's keys a result may hold `is_regression`, `counters` {number: count}, `detected_label`, `smoothed`
    (how often each class was seen lately) and `match` (class index).
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
        self._indent, self._highest, self._size = "", 0.0, 0
        self._listing = ""
        self._match = ""
        self._done: list[Block] = []

    def feed(self, lines: Iterable[str]) -> list[Block]:
        """The blocks that these lines show to be complete."""
        for line in lines:
            self._size += len(line)
            if self._size > MAX_BLOCK:
                self._close()
            if len(line) > phrases.MAX_LINE and not (self._section == "freeform" and line.startswith(" ")):
                self._too_long(line)
            elif self._block is not None and _is_indented(line):
                self._indented(self._block.result, line)
            else:
                self._flush_left(line)
        return self._taken()

    def _too_long(self, line: str) -> None:
        if not line.startswith("Framebuffer: "):
            self._unknown(line)

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
            if not self._indent:
                _settle_anomaly(self._block.result)
            self._done.append(self._block)
        self._block, self._section, self._indent, self._size = None, "", "", 0

    def _open(self, timing: dict[str, float]) -> Block:
        self._close()
        self._block = Block(timing)
        self._timed = bool(timing)
        return self._block

    def _flush_left(self, line: str) -> None:
        while line.startswith("> "):  # the prompt has no line end: what follows it stands on the same line
            self._close()
            line = line[2:]
        listing, self._listing = self._listing, ""
        if line.startswith(("Predictions (DSP:", "Timing: DSP")):
            self._timed_header(line)
        elif line.rstrip() == "Predictions:":
            self._untimed_header()
        elif line.startswith((_DEBUG, _NAMES)):
            self._close()
            self._listing = line.rstrip()[: len(_DEBUG)]
        elif _is_listed(listing, line):
            self._listing = listing
        elif not self._section_header(line) and not self._value(line) and not self._tabbed(line):
            self._said(line)

    def _said(self, line: str) -> None:
        """What is no result: the firmware's own words, or nothing that we know."""
        if _END.match(line):
            self._close()
            if _TROUBLE.match(line):
                self._unknown(line)
        elif line.strip() and not _CHATTER.match(line):
            self._unknown(line)

    def _timed_header(self, line: str) -> None:
        block = self._open(phrases.timing(line))
        self._timed = True
        if rest := line.partition("): ")[2].strip():  # sketches that smooth say the label on the same line
            block.result.update(phrases.smoothed(rest) or {})
            if not block.result:
                self._unknown(line)
            else:
                self._section = _NO_SECTION

    def _untimed_header(self) -> None:
        if self._block is not None and self._timed and not self._block.result and not self._section:
            return  # it follows the header with the times, of the same inference
        index, self._match = self._match, ""
        if index and not _INDEX.fullmatch(index):
            self._match, index = index, ""
        block = self._open({})
        if index:
            block.result["match"] = int(index)

    def _tabbed(self, line: str) -> bool:
        """A class below a header, as standalone programs print it: flush left, with a tab before its value."""
        if self._block is None or self._section:
            return False
        found = labelled(line)
        return found is not None and found.tab and self._class(self._block.result, found)

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
            known = phrases.track(result["object_tracking"], line)
        elif self._section == "traces":
            known = phrases.trace(result["object_tracking"], line)
        elif self._section == "counters":
            known = phrases.counter(result.setdefault("counters", {}), line)
        elif self._section == _NO_SECTION:
            known = False
        elif self._section == "freeform":
            known = phrases.floats(result["freeform"][-1], line)
        else:
            known = phrases.box(result[self._section], line)
        if not known and line.strip() and not _CHATTER.match(line):
            self._unknown(line)

    def _class_line(self, result: dict[str, Any], line: str) -> bool:
        if found := labelled(line):
            return self._class(result, found)
        if self._section:
            return False
        if line.startswith("    No objects found"):
            result.setdefault("bounding_boxes", [])
            return True
        boxes: list[dict[str, Any]] = []
        if phrases.box(boxes, line):
            result.setdefault("bounding_boxes", []).extend(boxes)
        return bool(boxes)

    def _class(self, result: dict[str, Any], found: Labelled) -> bool:
        """Take a class, or the anomaly score below the classes; not what only looks like one."""
        if found.label == "anomaly score" and not self._section:
            result["anomaly"] = found.value
            return True
        classes: dict[str, float] = result.get("classification", {})
        highest = max(found.value, self._highest) if classes else found.value
        if classes and (found.indent != self._indent or (highest > _HIGHEST and not result.get("is_regression"))):
            return False  # a single number of any size is a regression's, scores of classes are at most 1
        if phrases.is_summary(found.label) or (not self._section and "anomaly" in result):
            return False
        self._indent, self._highest = found.indent, highest
        result.setdefault("classification", {})[found.label] = found.value
        return True


def _is_indented(line: str) -> bool:
    return line.startswith(" ") or (line.startswith("\t") and not _SETTING.match(line))


def _is_listed(listing: str, line: str) -> bool:
    """Whether a line belongs to the list that an earlier one began."""
    if listing == _DEBUG:
        found = labelled(line)
        return found is not None and found.tab
    return listing == _NAMES and line.startswith("\t") and labelled(line) is None


def _settle_anomaly(result: dict[str, Any]) -> None:
    """Standalone programs print the anomaly score like a class named `anomaly`, which a model may have as well.

    It is the score where it comes last and the other classes make a whole without it, or none with it.
    """
    classes: dict[str, float] = result.get("classification", {})
    if "anomaly" in result or result.get("is_regression") or next(reversed(classes), "") != "anomaly":
        return
    others = sum(classes.values()) - classes["anomaly"]
    if others < _WHOLE and abs(others + classes["anomaly"] - 1) <= 1 - _WHOLE:
        return
    result["anomaly"] = classes.pop("anomaly")
    if not classes:
        del result["classification"]
