"""Blocks of results as Edge Impulse firmware prints them: where they begin and end, and what real sketches add."""

from typing import Any

import pytest

from edge_impulse_text_support import NOISE, parsed
from serial_scraper.edge_impulse import Block, EdgeImpulseParser

HEADER = "Timing: DSP 2 ms, inference 14 ms, anomaly 0 ms\n"


def test_a_block_is_complete_when_the_next_thing_begins() -> None:
    parser = EdgeImpulseParser(lambda line: None)
    for ending in ("Taking photo...", "Starting inferencing in 2 seconds...", "Recording...", "> ", HEADER.strip()):
        assert parser.feed([HEADER, "#Classification predictions:", "  idle: 0.99"]) == []
        (block,) = parser.feed([ending])
        assert block.result == {"classification": {"idle": 0.99}}, ending
    assert parser.flush() == []


def test_microseconds_become_milliseconds() -> None:
    (block,), _ = parsed([b"Timing: DSP 250 us, inference 1500 us, anomaly 0 us\nRegression prediction: 12.3\n"])
    assert block.timing == {"dsp": 0.25, "classification": 1.5, "anomaly": 0.0}
    assert block.result == {"classification": {"value": 12.3}, "is_regression": True}


def test_detection_without_objects_is_a_result_with_no_boxes() -> None:
    for said in ("#Object detection bounding boxes:\n", "#Object detection results:\r\n    No objects found\r\n"):
        (block,), _ = parsed([(HEADER + said).encode()])
        assert block.result == {"bounding_boxes": []}


def test_a_header_with_nothing_after_it_is_no_result() -> None:
    said = HEADER + "Could not determine how to print the results for this impulse\n"
    assert parsed([said.encode()]) == ([], [])


def test_printers_that_leave_digits_out_are_understood() -> None:
    (block,), _ = parsed([f"{HEADER}Classification predictions:\n  a: 0.\n  b: 1\n  c: -0.5\n  d: nan\n".encode()])
    scores = block.result["classification"]
    assert [scores["a"], scores["b"], scores["c"]] == [0.0, 1.0, -0.5]
    assert scores["d"] != scores["d"]


def test_a_matched_label_alone_and_a_matched_index_before_a_block() -> None:
    found, _ = parsed(
        [b"Match: glass break\n\nMatch: 1\n\nPredictions:\r\n    on: \t0\r\n    off: \t1\r\nMatch: glass break\n"]
    )
    assert [block.result for block in found] == [
        {"classification": {"glass break": 1.0}},
        {"match": 1, "classification": {"on": 0.0, "off": 1.0}},
        {"classification": {"glass break": 1.0}},
    ]


def test_settings_and_debug_output_are_not_mistaken_for_results() -> None:
    said = NOISE[3] + "\n    Frame size: 9216\n" + NOISE[14] + "\n" + NOISE[15] + "\n"
    found, unknown = parsed([said.encode()])
    assert found == []
    assert unknown == ["    Frame size: 9216"]


def test_unknown_lines_and_errors_of_the_firmware_are_told() -> None:
    _, unknown = parsed([f"{HEADER}what is this\nERR: Failed to get frame\nTaking photo...\n".encode()])
    assert unknown == ["what is this", "ERR: Failed to get frame"]


def test_a_section_that_comes_again_belongs_to_the_next_inference_even_if_its_header_was_lost() -> None:
    box = "  face (0.99) [ x: 1, y: 2, width: 3, height: 4 ]\n"
    said = f"{HEADER}#Object detection bounding boxes:\n{box}#Object detection bounding boxes:\n{box}"
    found, _ = parsed([said.encode()])
    assert [len(block.result["bounding_boxes"]) for block in found] == [1, 1]
    assert [bool(block.timing) for block in found] == [True, False]


OLD_HEADER = "Predictions (DSP: 14 ms., Classification: 1 ms., Anomaly: 2 ms.): "
TIMES = {"dsp": 14.0, "classification": 1.0, "anomaly": 2.0}
SKETCHES: dict[str, tuple[str, dict[str, float], dict[str, Any], list[str]]] = {
    "Predictions below a line of times": (
        "Timing: DSP 14 ms, inference 1 ms, anomaly 2 ms\n"
        "Predictions:\n  idle: 0.75\n  wave: 0.25\nAnomaly prediction: -0.5\n",
        TIMES,
        {"classification": {"idle": 0.75, "wave": 0.25}, "anomaly": -0.5},
        [],
    ),
    "Predictions below an older line of times": (
        f"{OLD_HEADER}\nPredictions:\n    idle: 1e-3\n    wave: .5\n",
        TIMES,
        {"classification": {"idle": 0.001, "wave": 0.5}},
        [],
    ),
    "a smoothed label": (
        f"{OLD_HEADER}idle  [ 9, 0, 1, 0, ]\n",
        TIMES,
        {"classification": {"idle": 1.0}, "detected_label": "idle", "smoothed": [9, 0, 1, 0]},
        [],
    ),
    "a smoothed label with blanks and brackets": (
        f"{OLD_HEADER}open [ the ] door  [ 9, 1 ]\n",
        TIMES,
        {"classification": {"open [ the ] door": 1.0}, "detected_label": "open [ the ] door", "smoothed": [9, 1]},
        [],
    ),
    "classes flush left": (
        f"{OLD_HEADER}\nidle:\t0.75\ngl\u00fcck: ja:\t0.25\nanomaly score:\t-0.5\n",
        TIMES,
        {"classification": {"idle": 0.75, "gl\u00fcck: ja": 0.25}, "anomaly": -0.5},
        [],
    ),
    "an anomaly flush left": (
        f"{OLD_HEADER}\nidle:\t0.75\nwave:\t0.25\nanomaly:\t0.01\n",
        TIMES,
        {"classification": {"idle": 0.75, "wave": 0.25}, "anomaly": 0.01},
        [],
    ),
    "an anomaly alone flush left": (f"{OLD_HEADER}\nanomaly:\t-1.5\n", TIMES, {"anomaly": -1.5}, []),
    "a class named anomaly flush left": (
        f"{OLD_HEADER}\nanomaly:\t0.75\nnormal:\t0.25\n",
        TIMES,
        {"classification": {"anomaly": 0.75, "normal": 0.25}},
        [],
    ),
    "a class named anomaly flush left at the end": (
        f"{OLD_HEADER}\nNormal:\t0.25\nanomaly:\t0.75\n",
        TIMES,
        {"classification": {"Normal": 0.25, "anomaly": 0.75}},
        [],
    ),
    "classes indented by tabs": (
        f"{OLD_HEADER}\n\tidle: 0.75\n\twave: 0.25\n",
        TIMES,
        {"classification": {"idle": 0.75, "wave": 0.25}},
        [],
    ),
    "what a sketch says of itself": (
        "run_classifier returned: 0\n"
        f"{OLD_HEADER}\n    idle: 0.75\n    wave: 0.25\n    run_classifier returned: 0\n    Total time: 0\n"
        "    Frames: 12\n  best: 0.75\nTotal:\t1\nBest label: idle\n",
        TIMES,
        {"classification": {"idle": 0.75, "wave": 0.25}},
        ["    run_classifier returned: 0", "    Total time: 0", "    Frames: 12", "  best: 0.75", "Total:\t1",
         "Best label: idle"],
    ),
    "a summary between classes": (
        f"{OLD_HEADER}\n    idle: 0.75\n    Frames: 12\n    wave: 0.25\n",
        TIMES,
        {"classification": {"idle": 0.75, "wave": 0.25}},
        ["    Frames: 12"],
    ),
    "nothing below the anomaly score is a class": (
        f"{OLD_HEADER}\n    idle: 1\n    anomaly score: 0.5\n    seen: 1\n",
        TIMES,
        {"classification": {"idle": 1.0}, "anomaly": 0.5},
        ["    seen: 1"],
    ),
    "one number of any size": (f"{OLD_HEADER}\n    value: -23.5\n", TIMES, {"classification": {"value": -23.5}}, []),
    "an error code": (
        f"{OLD_HEADER}\n    idle: 1\nrun_classifier returned: -3\n",
        TIMES,
        {"classification": {"idle": 1.0}},
        ["run_classifier returned: -3"],
    ),
    "words on a header": (
        f"{OLD_HEADER}maybe\n    idle: 1\n",
        TIMES,
        {"classification": {"idle": 1.0}},
        [f"{OLD_HEADER}maybe"],
    ),
    "a raw list of scores": (
        f"{OLD_HEADER}\n[0.75, 0.25]\n    idle: 0.75\n    wave: 0.25\n",
        TIMES,
        {"classification": {"idle": 0.75, "wave": 0.25}},
        ["[0.75, 0.25]"],
    ),
    "boxes far out with exponents": (
        f"{OLD_HEADER}\n    a (b) (9.9e-1) [ x: -4, y: 0, width: 8, height: 8 ]\n",
        TIMES,
        {"bounding_boxes": [{"label": "a (b)", "value": 0.99, "x": -4, "y": 0, "width": 8, "height": 8}]},
        [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SKETCHES)
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_what_real_sketches_print(name: str, newline: str) -> None:
    said, times, result, strange = SKETCHES[name]
    found, unknown = parsed([said.replace("\n", newline).encode()])
    assert found == [Block(times, result)]
    assert unknown == strange


def test_what_is_not_understood_is_never_chatter() -> None:
    strange = ["\tidle: 0.9", "\tspeed 12", "OKAY", "speed:\t3", "Predictions: idle", "--------x", "Match my words"]
    found, unknown = parsed([("Taking photo...\n" + "\n".join(strange) + "\n").encode()])
    assert (found, unknown) == ([], strange)


@pytest.mark.parametrize("newline", [b"\n", b"\r", b"\r\n"], ids=["lf", "cr", "crlf"])
@pytest.mark.parametrize(
    "dirt", [b"\0", b"\0\0\xff", b"\xef\xbb\xbf", b"\x11", b"\x02", b"\xfe\x80"], ids=lambda dirt: dirt.hex()
)
def test_bytes_of_the_line_driver_spoil_no_block(dirt: bytes, newline: bytes) -> None:
    lines = [dirt + HEADER.strip().encode(), b"#Classification predictions:" + dirt, b"  id\0le: 0.5"]
    (block,), unknown = parsed([newline.join(lines) + newline])
    assert (block.result, unknown) == ({"classification": {"idle": 0.5}}, [])
    assert block.timing


def test_line_separators_of_unicode_end_no_line() -> None:
    (block,), unknown = parsed(["Predictions:\n  a\u2028b: 0.5\n  c\x85d: 0.5\n".encode()])
    assert (block.result["classification"], unknown) == ({"a\u2028b": 0.5, "c\x85d": 0.5}, [])


def test_a_block_without_end_fills_no_memory() -> None:
    unknown: list[str] = []
    parser = EdgeImpulseParser(unknown.append)
    found = parser.feed(["Freeform output index=0", *(["  " + "1 " * 4000] * 200)])
    assert len(found) == 1
    assert len(found[0].result["freeform"][0]) < 600_000
    assert len(unknown) > 50


def test_numbers_beyond_any_use_end_nothing() -> None:
    said = "\n".join(["Match: " + "9" * 5000, "Match: \u0661", "Predictions:", f"  a: {'9' * 4000}", "  b: 1e999"])
    found, _ = parsed([said.encode() + b"\n"])
    assert len(found) == 2
