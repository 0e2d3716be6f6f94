"""Edge Impulse results as firmware prints them, one renderer for each generation of the firmware SDK.

An inference is described as a Linux model (.eim) would answer it: `timing` in milliseconds and `result` with
`classification`, `anomaly`, `bounding_boxes`, `object_tracking`, `visual_anomaly_grid` (+ `_mean`, `_max`), `freeform`,
and what only firmware prints: `counters`, `detected_label`, `match`. Source of the texts: the firmware repositories
and `ei_print_results.h`, `ei_run_classifier.h` of the inferencing SDK at the versions named below.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Result = dict[str, Any]


@dataclass
class Inference:
    """`regression` says that `classification` holds the one output of a regression model."""

    timing: dict[str, float]
    result: Result
    regression: bool = False


@dataclass
class Style:
    """How one board prints: its line end and its number format."""

    newline: str = "\n"
    number: Callable[[float], str] = field(default="{:.5f}".format)


def short_number(value: float) -> str:
    """The printer of Himax, Seeed and STM32 CubeAI builds: no point on whole numbers, digits cut, not rounded."""
    whole, _, digits = f"{abs(value):.8f}".partition(".")
    text = whole if not int(digits) else f"{whole}.{digits[:5].rstrip('0')}"
    return f"-{text}" if value < 0 else text


def render(inference: Inference, dialect: str, style: Style | None = None) -> str:
    """The text of one inference in a dialect of DIALECTS. Raises KeyError for an unknown dialect."""
    style = style or Style()
    lines = DIALECTS[dialect](inference, style.number)
    return "".join(line + style.newline for line in lines)


def _header(timing: dict[str, float], unit: str = " ms") -> str:
    dsp, classification, anomaly = (timing.get(name, 0) for name in ("dsp", "classification", "anomaly"))
    return f"Predictions (DSP: {dsp:g} ms., Classification: {classification:g} ms., Anomaly: {anomaly:g}{unit}.): "


def _rect(box: dict[str, Any]) -> str:
    return f"[ x: {box['x']}, y: {box['y']}, width: {box['width']}, height: {box['height']} ]"


def _boxes(boxes: list[dict[str, Any]], number: Callable[[float], str], indent: str) -> list[str]:
    return [f"{indent}{box['label']} ({number(box['value'])}) {_rect(box)}" for box in boxes]


def _classes(result: Result, number: Callable[[float], str], line: str) -> list[str]:
    return [line.format(label, number(value)) for label, value in result.get("classification", {}).items()]


def _d1(inference: Inference, number: Callable[[float], str], line: str = "    {}: {}") -> list[str]:
    """2020-05 to 2023, Arduino Nano 33 BLE Sense."""
    lines = [_header(inference.timing), *_classes(inference.result, number, line)]
    if "anomaly" in inference.result:
        lines.append(f"    anomaly score: {number(inference.result['anomaly'])}")
    return lines


def _d1b(inference: Inference, number: Callable[[float], str]) -> list[str]:
    """2021 cameras and Eta Compute: a tab before the value."""
    return _d1(inference, number, "    {}: \t{}")


def _d2(inference: Inference, number: Callable[[float], str]) -> list[str]:
    """2022-03 to 2024-01, object detection before sections had titles."""
    boxes = _boxes(inference.result["bounding_boxes"], number, "    ")
    return [_header(inference.timing), *(boxes or ["    No objects found"])]


def _d3(inference: Inference, number: Callable[[float], str], unit: str = " ms") -> list[str]:
    """SDK of 2024-03: sections with titles."""
    result = inference.result
    lines = [_header(inference.timing, unit)]
    if "bounding_boxes" in result:
        boxes = _boxes(result["bounding_boxes"], number, "    ")
        lines += ["#Object detection results:", *(boxes or ["    No objects found"])]
    if "classification" in result:
        title = "#Regression results:" if inference.regression else "#Classification results:"
        lines += [title, *_classes(result, number, "    {}: {}")]
    if "visual_anomaly_grid" in result:
        mean, top = number(result["visual_anomaly_mean"]), number(result["visual_anomaly_max"])
        lines += ["#Visual anomaly grid results:", *_boxes(result["visual_anomaly_grid"], number, "    ")]
        lines += [f"Visual anomaly values: Mean {mean} Max {top}"]
    if "anomaly" in result:
        lines.append(f"Anomaly prediction: {number(result['anomaly'])}")
    return lines


def _d4(inference: Inference, number: Callable[[float], str]) -> list[str]:
    """SDK of 2024-12 to 2025-10: a header without the last blank, counters, traces, calibrated labels."""
    result = inference.result
    lines = _d3(inference, number, unit="ms")
    if "counters" in result:
        lines += ["Counts:", *(f"  Counter {key}: {count}" for key, count in result["counters"].items())]
    if "object_tracking" in result:
        tracks = [f"  Trace {box['object_id']}: {box['label']} {_rect(box)}" for box in result["object_tracking"]]
        lines += ["Open traces:", *tracks]
    if "detected_label" in result:
        lines.append(f"Detected label: {result['detected_label']}")
    return lines


def _d5(inference: Inference, number: Callable[[float], str], mark: str = "") -> list[str]:
    """SDK v1.77.0 (2025-10), ei_print_results.h; with mark `#` and track scores v1.83.0 (2026-01) and later."""
    result, timing = inference.result, inference.timing
    times = (("DSP", "dsp"), ("inference", "classification"), ("anomaly", "anomaly"))
    header = "Timing: " + ", ".join(f"{word} {timing.get(name, 0):g} ms" for word, name in times)
    if "postprocessing" in timing:
        header += f", postprocessing {timing['postprocessing']:g} ms"
    lines = [header]
    if "bounding_boxes" in result:
        lines += [f"{mark}Object detection bounding boxes:", *_boxes(result["bounding_boxes"], number, "  ")]
    if inference.regression:
        lines += [f"{mark}Regression prediction: {number(value)}" for value in result["classification"].values()]
    elif "classification" in result:
        lines += [f"{mark}Classification predictions:", *_classes(result, number, "  {}: {}")]
    if "object_tracking" in result:
        lines += [f"{mark}Object tracking results:"]
        for box in result["object_tracking"]:
            score = f" ({number(box['value'])})" if mark else ""
            lines.append(f"  {box['label']} (ID {box['object_id']}){score} {_rect(box)}")
    for index, values in enumerate(result.get("freeform", [])):
        lines += [f"{mark}Freeform output index={index}", "  " + "".join(f"{number(value)} " for value in values)]
    if "visual_anomaly_grid" in result:
        mean, top = number(result["visual_anomaly_mean"]), number(result["visual_anomaly_max"])
        lines += [f"{mark}Visual anomalies:", *_boxes(result["visual_anomaly_grid"], number, "  ")]
        lines += [f"Visual anomaly mean: {mean}, max: {top}"]
    if "anomaly" in result:
        lines.append(f"Anomaly prediction: {number(result['anomaly'])}")
    return lines


def _d6(inference: Inference, number: Callable[[float], str]) -> list[str]:
    return _d5(inference, number, mark="#")


def _d7(inference: Inference, number: Callable[[float], str]) -> list[str]:
    """Syntiant TinyML: whole numbers and no timing."""
    return ["", "Predictions:", *_classes(inference.result, lambda value: f"{value:.0f}", "    {}: \t{}")]


def _d8(inference: Inference, number: Callable[[float], str]) -> list[str]:
    """Nicla Voice: the index of the matched class before the block, or nothing but a matched label."""
    result = inference.result
    if "match" in result:
        return ["", f"Match: {result['match']}", *_d7(inference, number)[1:]]
    return [f"Match: {label}" for label in result["classification"]]


def _d9(inference: Inference, number: Callable[[float], str]) -> list[str]:
    """AT+RUNIMPULSESTATIC: no timing."""
    result = inference.result
    lines = []
    if "bounding_boxes" in result:
        lines += ["Object detection bounding boxes:", *_boxes(result["bounding_boxes"], number, "  ")]
    else:
        lines += ["Predictions:", *_classes(result, number, "  {}: {}")]
    if "anomaly" in result:
        lines.append(f"Anomaly prediction: {number(result['anomaly'])}")
    return lines


DIALECTS: dict[str, Callable[[Inference, Callable[[float], str]], list[str]]] = {
    "D1": _d1,
    "D1b": _d1b,
    "D2": _d2,
    "D3": _d3,
    "D4": _d4,
    "D5": _d5,
    "D6": _d6,
    "D7": _d7,
    "D8": _d8,
    "D9": _d9,
}
