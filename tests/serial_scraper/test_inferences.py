"""Any inference that firmware may print comes out as it went in, through any noise."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_impulse_text_support import NOISE, parsed, split
from localdev.simulators.dialects import Inference, Style, render, short_number
from serial_scraper.edge_impulse import Block

NUMBERS: dict[str, Callable[[float], str]] = {
    "%.5f": "{:.5f}".format,
    "%.3f": "{:.3f}".format,
    "%f": "{:f}".format,
    "short": short_number,
}
words = st.text(
    st.characters(exclude_categories=["C", "Z"], include_characters=" :(-#[]{},."), min_size=1, max_size=12
).filter(lambda label: label == label.strip() and not label.isdecimal())
labels = words.filter(lambda label: label not in ("anomaly score",))
scores = st.floats(0, 1, allow_nan=False)
numbers = st.floats(-1000, 1000, allow_nan=False)
pixels = st.integers(0, 320)


def boxes(values: st.SearchStrategy[float] = scores, **more: Any) -> st.SearchStrategy[list[dict[str, Any]]]:
    fields = {"label": labels, "value": values, "x": pixels, "y": pixels, "width": pixels, "height": pixels}
    return st.lists(st.fixed_dictionaries({**fields, **more}), max_size=4)


classes = st.fixed_dictionaries({"classification": st.dictionaries(labels, scores, min_size=1, max_size=5)})
anomaly = st.fixed_dictionaries({"anomaly": numbers})
detections = st.fixed_dictionaries({"bounding_boxes": boxes()})
tracks = st.fixed_dictionaries({"bounding_boxes": boxes(), "object_tracking": boxes(object_id=pixels)})
freeform = st.fixed_dictionaries(
    {"freeform": st.lists(st.lists(numbers, min_size=1, max_size=6), min_size=1, max_size=3)}
)
grid = st.fixed_dictionaries(
    {"visual_anomaly_grid": boxes(numbers), "visual_anomaly_mean": numbers, "visual_anomaly_max": numbers}
)
counted = st.fixed_dictionaries(
    {
        "bounding_boxes": boxes(),
        "object_tracking": boxes(object_id=pixels),
        "counters": st.dictionaries(pixels.map(str), pixels, min_size=1, max_size=3),
    }
)
calibrated = st.fixed_dictionaries({"detected_label": words, "classification": st.just({"yes": 0.75, "no": 0.25})})
bits = st.fixed_dictionaries(
    {"classification": st.dictionaries(labels, st.sampled_from([0.0, 1.0]), min_size=1, max_size=4)}
)


def both(first: st.SearchStrategy[dict[str, Any]], second: st.SearchStrategy[dict[str, Any]]) -> Any:
    return st.builds(lambda a, b: {**a, **b}, first, second)


modern = classes | both(classes, anomaly) | detections | tracks | freeform | grid | anomaly
RESULTS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "D1": classes | both(classes, anomaly),
    "D1b": classes | both(classes, anomaly),
    "D2": detections,
    "D3": classes | both(classes, anomaly) | detections | grid | anomaly,
    "D4": classes | both(classes, anomaly) | detections | grid | counted | calibrated,
    "D5": modern,
    "D6": modern,
    "D7": bits,
    "D8": both(bits, st.fixed_dictionaries({"match": st.integers(0, 9)}))
    | labels.map(lambda label: {"classification": {label: 1.0}}),
    "D9": classes | both(classes, anomaly) | detections,
}
TIMED = ("D1", "D1b", "D2", "D3", "D4", "D5", "D6")
HAS_REGRESSION = ("D3", "D4", "D5", "D6")
times = st.fixed_dictionaries({"dsp": pixels, "classification": pixels, "anomaly": pixels})


@st.composite
def inferences(draw: st.DrawFn, dialect: str) -> Inference:
    timing: dict[str, float] = dict(draw(times))
    if dialect == "D6" and draw(st.booleans()):
        timing["postprocessing"] = draw(pixels)
    if dialect in HAS_REGRESSION and draw(st.integers(0, 4)) == 0:
        label = "value" if dialect in ("D5", "D6") else draw(labels)
        return Inference(timing, {"classification": {label: draw(numbers)}}, regression=True)
    return Inference(timing, draw(RESULTS[dialect]))


def expected(inference: Inference, dialect: str, number: Callable[[float], str]) -> Block:
    """What the text of an inference says: its numbers as they were printed, and no more than the dialect prints."""

    def printed(value: Any) -> Any:
        if isinstance(value, float):
            return float(number(value))
        if isinstance(value, dict):
            return {key: printed(item) for key, item in value.items()}
        return [printed(item) for item in value] if isinstance(value, list) else value

    result = printed(inference.result)
    if dialect in ("D4", "D5"):
        for track in result.get("object_tracking", []):
            track["value"] = 1.0
    if inference.regression:
        result["is_regression"] = True
    return Block({name: float(ms) for name, ms in inference.timing.items()} if dialect in TIMED else {}, result)


@pytest.mark.parametrize("dialect", RESULTS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_what_comes_out_is_what_went_in(dialect: str, data: st.DataObject) -> None:
    number = NUMBERS[data.draw(st.sampled_from(list(NUMBERS)))]
    newline = data.draw(st.sampled_from(["\n", "\r\n", "\r\r\n"]))
    said = ""
    blocks = data.draw(st.lists(inferences(dialect), max_size=4))
    for inference in blocks:
        for noise in data.draw(st.lists(st.sampled_from(NOISE), max_size=3)):
            said += noise + newline
        said += render(inference, dialect, Style(newline, number))
    cuts = data.draw(st.lists(st.integers(0, 10_000), max_size=12))
    found, _ = parsed(split(said.encode(), cuts))
    assert found == [expected(inference, dialect, number) for inference in blocks]


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=6))
@settings(max_examples=100, deadline=None)
def test_binary_garbage_neither_stops_nor_spoils_what_follows(garbage: bytes, cuts: list[int]) -> None:
    good = Inference({"dsp": 1, "classification": 2, "anomaly": 0}, {"classification": {"idle": 0.5}})
    chunks = [*split(garbage, cuts), b"\n", render(good, "D6").encode()]
    found, _ = parsed(chunks)
    assert found[-1] == expected(good, "D6", NUMBERS["%.5f"])
