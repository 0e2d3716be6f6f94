"""Pictures shrunk to a bound, and looked at in tiles."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeml.bundle import InputTensor
from edgeml.errors import BackendError, BundleError
from edgeml.messages import Detection
from fitting_support import IMAGE, REGRESSION, SOFTMAX, VECTOR, exported, floats, opened, save
from inferencer.preprocess import Preprocessor
from inferencer.tasks.tiling import Tile, merged, tiles
from inferencer_support import describe, sample

ANY = InputTensor(name="input", size=(0, 0), multiple=32)


# --- max_side ---


@pytest.mark.parametrize(
    ("size", "limit", "expected"),
    [
        ((1280, 720), 0, (1280, 736)),
        ((1280, 720), 640, (640, 384)),
        ((1920, 1080), 640, (640, 384)),
        ((720, 1280), 640, (384, 640)),
        ((641, 640), 640, (640, 640)),
        ((640, 640), 640, (640, 640)),
        ((639, 100), 640, (640, 128)),
        ((1280, 720), 700, (672, 384)),  # the largest multiple of 32 within
        ((5000, 10), 320, (320, 32)),
        ((1280, 720), 32, (32, 32)),
    ],
)
def test_larger_pictures_shrink_in_proportion(size: tuple[int, int], limit: int, expected: tuple[int, int]) -> None:
    image = np.zeros((size[1], size[0], 3), np.uint8)
    tensor, geometry = Preprocessor(ANY, limit)(image)
    assert (tensor.shape[3], tensor.shape[2]) == geometry.size == expected
    corner = geometry.to_source(np.array(expected, float))
    np.testing.assert_allclose(corner, size)


@pytest.mark.parametrize(
    ("declared", "limit", "words"),
    [
        (ANY, 31, "at least 32 as max_side, found 31"),
        (InputTensor(name="input", size=(256, 256)), 128, "any size, this takes 256x256"),
    ],
)
def test_a_bound_that_cannot_be_kept_is_refused(declared: InputTensor, limit: int, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Preprocessor(declared, limit)


def finder(folder: Path) -> Path:
    """A model of any size that finds what is bright: one box of 4 x 4 around the brightest pixel, with its score."""
    folder.mkdir()
    nodes = [
        helper.make_node("ReduceMax", ["input", "channels"], ["grey"], keepdims=0),  # [1, h, w]
        helper.make_node("ReduceMax", ["grey", "sides"], ["score"], keepdims=0),  # [1]
        helper.make_node("ReduceMax", ["grey", "rows"], ["across"], keepdims=0),
        helper.make_node("ReduceMax", ["grey", "columns"], ["down"], keepdims=0),
        helper.make_node("ArgMax", ["across"], ["x"], axis=1, keepdims=1),  # [1, 1]
        helper.make_node("ArgMax", ["down"], ["y"], axis=1, keepdims=1),
        helper.make_node("Concat", ["x", "y"], ["centre"], axis=1),
        helper.make_node("Cast", ["centre"], ["place"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["place", "half"], ["middle"]),
        helper.make_node("Concat", ["middle", "size"], ["flat"], axis=1),
        helper.make_node("Unsqueeze", ["flat", "one"], ["boxes"]),
        helper.make_node("Unsqueeze", ["score", "one"], ["scores"]),
        helper.make_node("Mul", ["scores", "nought"], ["classes"]),
    ]
    constants = {
        "channels": np.array([1]), "sides": np.array([1, 2]), "rows": np.array([1]), "columns": np.array([2]),
        "one": np.array([1]), "half": np.array([[0.5, 0.5]], np.float32), "size": np.array([[4, 4]], np.float32),
        "nought": np.array([[0]], np.float32),
    }  # fmt: skip
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, "h", "w"])
    out = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("boxes", "scores", "classes")]
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    save(helper.make_graph(nodes, "g", [given], out, weights), folder, opset=18)
    declared = {
        "task": "detection",
        "labels": ["spark"],
        "input": {"name": "input", "size": [0, 0], "multiple": 32, "scale": 1 / 255},
        "output": {"decoder": "detections", "parameters": {"boxes": "cxcywh", "unit": "pixel"}},
    }
    return describe(folder, "1.0.0", declared)


def looked(folder: Path, data: Any, max_side: int = 0, grid: tuple[int, int] = (1, 1)) -> Any:
    runner = opened(folder)
    runner.look(max_side, grid)
    runner.rehearse()
    outcome = runner.infer(sample(data))
    assert outcome is not None
    return outcome.results


def test_boxes_of_a_shrunk_picture_are_in_its_own_pixels(tmp_path: Path) -> None:
    data = np.zeros((720, 1280, 3), np.uint8)
    data[480:500, 800:820] = 255
    (found,) = looked(finder(tmp_path / "b"), data, max_side=640)
    x, y, width, height = found.box
    assert 800 <= x + width / 2 <= 820
    assert 480 <= y + height / 2 <= 500
    assert (width, height) == (pytest.approx(8), pytest.approx(4 * 720 / 384, abs=0.1))


def test_tiles_find_in_each_what_the_whole_finds_once(tmp_path: Path) -> None:
    """The model finds one thing a picture: the whole, shrunk, sees one of four, its tiles all."""
    data = np.zeros((720, 1280, 3), np.uint8)
    places = [(100, 100), (1200, 90), (110, 650), (1210, 660)]
    for number, (x, y) in enumerate(places):
        data[y - 1 : y + 2, x - 1 : x + 2] = 250 - number
    folder = finder(tmp_path / "b")
    assert len(looked(folder, data)) == 1
    found = looked(folder, data, grid=(2, 2))
    centres = [(one.box[0] + one.box[2] / 2, one.box[1] + one.box[3] / 2) for one in found]
    assert len(found) == 4
    for x, y in places:
        assert any(abs(x - cx) < 3 and abs(y - cy) < 3 for cx, cy in centres)


# --- tiles ---


@pytest.mark.parametrize("size", [(1920, 1080), (1280, 720), (101, 67), (8, 9), (1, 1), (2, 900)])
@pytest.mark.parametrize("grid", [(1, 1), (2, 1), (1, 2), (2, 2), (3, 2), (8, 8)])
def test_tiles_cover_the_picture_and_overlap(size: tuple[int, int], grid: tuple[int, int]) -> None:
    whole, *parts = tiles(*size, *grid)
    assert (whole.x, whole.y, whole.width, whole.height) == (0, 0, *size)
    assert len(parts) == (grid[0] * grid[1] if grid != (1, 1) else 0)
    covered = np.zeros((size[1], size[0]), int)
    for one in parts:
        assert one.width > 0
        assert one.height > 0
        covered[one.y : one.y + one.height, one.x : one.x + one.width] += 1
    if parts:
        assert covered.min() >= 1
        assert covered.shape == (size[1], size[0])


def test_an_object_within_the_overlap_is_whole_in_one_of_them() -> None:
    _, left, right = tiles(1000, 500, 2, 1)
    shared = left.x + left.width - right.x
    assert shared == pytest.approx(0.2 * left.width, abs=2)


LEFT, RIGHT = tiles(1000, 500, 2, 1)[1:]


def box(x: float, y: float, width: float, height: float, score: float, label: str = "a") -> Detection:
    return Detection(label, score, (x, y, width, height))


MERGED: dict[str, tuple[list[tuple[Tile, list[Detection]]], list[float]]] = {
    "one object, seen in both": (
        [(LEFT, [box(480, 9, 40, 40, 0.8)]), (RIGHT, [box(480 - RIGHT.x, 10, 40, 40, 0.9)])],
        [0.9],
    ),
    "a half that an edge cuts off": (
        [(LEFT, [box(LEFT.width - 30, 9, 30, 60, 0.95)]), (RIGHT, [box(LEFT.width - 30 - RIGHT.x, 9, 70, 60, 0.2)])],
        [0.95],
    ),
    "two halves that no other covers": ([(LEFT, [box(LEFT.width - 9, 9, 9, 9, 0.5)]), (RIGHT, [])], [0.5]),
    "a small one before a large": ([(LEFT, [box(100, 100, 200, 300, 0.9), box(150, 200, 50, 90, 0.7)])], [0.9, 0.7]),
    "other labels in one place": ([(LEFT, [box(9, 9, 9, 9, 0.9), box(9, 9, 9, 9, 0.8, "b")])], [0.9, 0.8]),
    "at the edge of the picture": ([(LEFT, [box(0, 0, 50, 50, 0.9), box(0, 0, 90, 90, 0.8)])], [0.9, 0.8]),
    "nothing": ([(LEFT, []), (RIGHT, [])], []),
}  # fmt: skip


@pytest.mark.parametrize("case", MERGED)
def test_each_object_stays_once(case: str) -> None:
    seen, scores = MERGED[case]
    assert [one.score for one in merged(seen)] == scores


def test_what_is_merged_is_bounded_and_the_surest() -> None:
    """A noisy picture gives in each of its tiles as many boxes as a decoder tells of."""
    numbers = np.random.default_rng(0).random((65, 300, 3))
    seen = [
        (tile, [box(x * tile.width, y * tile.height, 4, 4, score) for x, y, score in found.tolist()])
        for tile, found in zip(tiles(8000, 8000, 8, 8), numbers, strict=True)
    ]
    found = [one.score for one in merged(seen)]
    assert len(found) == 300
    assert found[0] == numbers[:, :, 2].max()
    assert found == sorted(found, reverse=True)
    assert found[-1] > 0.95


def test_boxes_landmarks_and_outlines_move_with_the_tile() -> None:
    seen = Detection("a", 0.9, (10, 20, 5, 5), landmarks=[(11, 21)], outlines=[[(10, 20), (15, 20), (15, 25)]])
    (found,) = merged([(Tile(100, 200, 50, 50, (True,) * 4), [seen])])
    outline = [(110.0, 220.0), (115.0, 220.0), (115.0, 225.0)]
    assert found == Detection("a", 0.9, (110.0, 220.0, 5.0, 5.0), landmarks=[(111.0, 221.0)], outlines=[outline])


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="tiles are for detection, this is classification"):
        opened(exported(tmp_path / "a", {"o": floats(1, 3)}, **SOFTMAX)).look(0, (2, 2))
    with pytest.raises(BundleError, match="for models of pictures, this takes numbers"):
        opened(exported(tmp_path / "b", {"o": floats(1, 1)}, **{**REGRESSION, "input": VECTOR})).look(640, (1, 1))
    with pytest.raises(BundleError, match="any size, this takes 8x8"):
        opened(exported(tmp_path / "c", {"o": floats(1, 3)}, **{**SOFTMAX, "input": IMAGE})).look(640, (1, 1))
    with pytest.raises(BackendError, match="the source gives numbers"):
        looked(finder(tmp_path / "d"), [1, 2], grid=(2, 2))
