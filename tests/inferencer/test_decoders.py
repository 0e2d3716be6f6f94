from typing import Any

import numpy as np
import pytest

from edgeml.messages import Detection
from inferencer.preprocess import Geometry
from inferencer.tasks import centerface, finished, softmax, yolo
from inferencer.tasks.decoding import Wanted

LABELS = ("bolt", "nut")
WANTED = Wanted(threshold=0.4, top_k=5)
# A 200x100 image in a 100x100 input: x is halved
GEOMETRY = Geometry(200, 100, 0.5, 1.0)


def rows(layout: str) -> Any:
    """Two overlapping bolts, a nut in the same place, and something too weak; centre x, centre y, width, height."""
    boxes = [[50, 50, 20, 20], [51, 50, 20, 20], [50, 50, 20, 20], [20, 20, 10, 10]]
    chances = [[0.9, 0.0], [0.8, 0.0], [0.0, 0.7], [0.3, 0.1]]
    if layout == "v8":
        return np.array([box + chance for box, chance in zip(boxes, chances, strict=True)], np.float32).T[np.newaxis]
    table = [
        [*box, max(chance), *(c / max(chance) for c in chance)] for box, chance in zip(boxes, chances, strict=True)
    ]
    return np.array(table, np.float32)[np.newaxis]


@pytest.mark.parametrize("layout", ["v5", "v8"])
def test_yolo_keeps_the_best_of_each_class_in_source_pixels(layout: str) -> None:
    found = yolo.decode({"output": rows(layout)}, GEOMETRY, LABELS, WANTED, {"layout": layout, "nms": 0.5})
    assert found == [
        Detection("bolt", 0.9, (80.0, 40.0, 40.0, 20.0)),
        Detection("nut", 0.7, (80.0, 40.0, 40.0, 20.0)),
    ]


@pytest.mark.parametrize("layout", ["v5", "v8"])
def test_yolo_without_a_sure_box_finds_nothing(layout: str) -> None:
    assert yolo.decode({"output": rows(layout)}, GEOMETRY, LABELS, Wanted(0.95, 5), {"layout": layout}) == []


def test_boxes_are_clipped_to_the_source() -> None:
    output = np.array([[[0, 0, 20, 20, 1.0, 1.0, 0.0]]], np.float32)
    (found,) = yolo.decode({"output": output}, GEOMETRY, LABELS, WANTED, {})
    assert found.box == (0.0, 0.0, 20.0, 10.0)


def test_centerface_places_box_and_landmarks() -> None:
    shape = (1, 1, 25, 25)
    heat = np.zeros(shape, np.float32)
    heat[0, 0, 10, 12] = 0.8  # row 10, column 12, in cells of 4 pixels
    scale, offset = np.zeros((1, 2, 25, 25), np.float32), np.zeros((1, 2, 25, 25), np.float32)
    scale[0, :, 10, 12] = np.log([5, 4])  # height 20, width 16
    marks = np.zeros((1, 10, 25, 25), np.float32)
    marks[0, :, 10, 12] = [0.5, 0.25] * 5  # (y, x), relative to the box
    outputs = {"heatmap": heat, "scale": scale, "offset": offset, "landmarks": marks}
    (face,) = centerface.decode(outputs, Geometry(100, 100), ("face",), WANTED, {})
    assert face.box == (42.0, 32.0, 16.0, 20.0)
    assert face.landmarks == [(46.0, 42.0)] * 5


def test_softmax_gives_the_best_first_and_probabilities_as_they_are() -> None:
    scores = np.log(np.array([[0.1, 0.6, 0.3]], np.float32))
    found = softmax.decode({"logits": scores}, GEOMETRY, ("a", "b", "c"), Wanted(0.2, 2), {})
    assert [item.label for item in found] == ["b", "c"]
    np.testing.assert_allclose([item.score for item in found], [0.6, 0.3], rtol=1e-5)
    (only,) = softmax.decode({"p": np.array([[0.1, 0.9]])}, GEOMETRY, LABELS, WANTED, {"apply_softmax": False})
    assert (only.label, only.score) == ("nut", 0.9)


@pytest.mark.parametrize("count", [1, 3, 60, 1000])
@pytest.mark.parametrize("threshold", [0.0, 1e-4, 0.3])
def test_of_many_scores_the_best_are_told_of_as_if_all_were_sorted(threshold: float, count: int) -> None:
    scores = np.random.default_rng(count).integers(-9, 9, (1, count)).astype(np.float32)  # many of them alike
    chances = np.exp(scores[0]) / np.exp(scores[0]).sum()
    told = softmax.decode({"logits": scores}, GEOMETRY, (), Wanted(threshold, 5), {})
    best = sorted(((chance, index) for index, chance in enumerate(chances) if chance >= threshold), reverse=True)[:5]
    assert [item.label for item in told] == [str(index) for _, index in best]
    np.testing.assert_allclose([item.score for item in told], [chance for chance, _ in best], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_score_that_is_not_finite_is_an_error(value: float) -> None:
    scores = np.array([[0.5, value, 0.5]], np.float32)
    with pytest.raises(ValueError, match="not finite"):
        softmax.decode({"logits": scores}, GEOMETRY, (), Wanted(0.2, 2), {})


@pytest.mark.parametrize("layout", ["v5", "v8"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_box_that_is_not_finite_is_an_error(layout: str, value: float) -> None:
    table = rows(layout)
    table[(0, slice(0, 4)) if layout == "v8" else (0, slice(None), slice(0, 4))] = value
    with pytest.raises(ValueError, match="not finite"):
        yolo.decode({"output": table}, GEOMETRY, LABELS, WANTED, {"layout": layout})


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_class_that_is_not_finite_is_an_error(value: float) -> None:
    """It would pass for another label, which nobody hides."""
    table = np.array([[[0, 0, 9, 9, 0.9, value]]], np.float32)
    with pytest.raises(ValueError, match="not finite"):
        finished.decode({"output": table}, GEOMETRY, LABELS, WANTED, {})


def test_of_very_many_final_boxes_the_best_are_told_of() -> None:
    table = np.ones((1, 8400, 6), np.float32)
    table[0, :, 4] = np.linspace(0.9, 1, 8400)
    found = yolo.decode({"output": table}, GEOMETRY, LABELS, WANTED, {"layout": "v10"})
    assert (len(found), found[0].score) == (300, 1)


@pytest.mark.parametrize("name", ["heatmap", "scale", "offset", "landmarks"])
@pytest.mark.parametrize("value", [np.nan, 1e9])
def test_a_face_that_is_not_finite_is_an_error(name: str, value: float) -> None:
    outputs = {"heatmap": np.full((1, 1, 5, 5), 0.9, np.float32)}
    outputs |= {other: np.zeros((1, 2, 5, 5), np.float32) for other in ("scale", "offset")}
    outputs["landmarks"] = np.zeros((1, 10, 5, 5), np.float32)
    outputs[name][:] = value
    if value == 1e9 and name != "scale":  # only sizes are exponents
        assert centerface.decode(outputs, Geometry(20, 20), ("face",), WANTED, {}) is not None
        return
    with pytest.raises(ValueError, match="not finite"):
        centerface.decode(outputs, Geometry(20, 20), ("face",), WANTED, {})
