"""Our decoders find in a model's outputs what its makers' own code finds there (tests/peers/decoders_reference.py)."""

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import decoder_cases as cases
from decoder_cases import CASES, LABELS, NMS, SIZE, THRESHOLD
from edgeml.messages import Detection
from fitting_support import exported, opened
from inferencer_support import sample

KEPT = Path(__file__).parents[1] / "peers" / "decoders_reference.json"


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(KEPT.read_text(encoding="utf-8"))["answers"]
    return found


def answers(folder: Path, name: str) -> list[Detection]:
    """What a bundle with a model that gives the case's outputs answers for a picture of the input's own size."""
    decoder, make = CASES[name]
    case = make()
    path = exported(
        folder / name,
        case.outputs,
        files=case.files,
        task="detection",
        labels=list(LABELS),
        input={"name": "input", "size": list(SIZE)},
        output={"decoder": decoder, "parameters": {"nms": NMS, **case.parameters}},
    )
    outcome = opened(path, score_threshold=THRESHOLD).infer(sample(np.zeros((SIZE[1], SIZE[0], 3), np.uint8)))
    assert outcome is not None
    found: list[Detection] = outcome.results
    return found


def ordered(reference: dict[str, Any]) -> list[int]:
    return sorted(range(len(reference["scores"])), key=lambda index: -float(reference["scores"][index]))


@pytest.mark.parametrize("name", CASES)
def test_boxes_scores_and_labels_are_the_makers(tmp_path: Path, name: str, reference: dict[str, Any]) -> None:
    theirs = reference[name]
    found = sorted(answers(tmp_path, name), key=lambda one: -one.score)
    order = ordered(theirs)
    assert [one.label for one in found] == [LABELS[theirs["classes"][index]] for index in order]
    np.testing.assert_allclose([one.score for one in found], [theirs["scores"][index] for index in order], atol=2e-4)
    corners = np.clip([theirs["boxes"][index] for index in order], 0, (*SIZE, *SIZE))
    ours = np.array([one.box for one in found])
    ours[:, 2:] += ours[:, :2]
    np.testing.assert_allclose(ours, corners, atol=0.12)  # boxes are told in tenths of a pixel


@pytest.mark.parametrize("name", ["yolo_pose", "yolo_pose_v10"])
def test_keypoints_are_the_makers(tmp_path: Path, name: str, reference: dict[str, Any]) -> None:
    theirs = np.array([reference[name]["keypoints"][index] for index in ordered(reference[name])])
    theirs = theirs.reshape(-1, cases.KEYPOINTS, 3)
    found = sorted(answers(tmp_path, name), key=lambda one: -one.score)
    np.testing.assert_allclose([one.landmarks for one in found], theirs[:, :, :2], atol=0.06)
    np.testing.assert_allclose([one.visibility for one in found], theirs[:, :, 2], atol=1e-3)


@pytest.mark.parametrize("name", ["yolo_segment", "yolo_segment_v10"])
def test_outlines_cover_the_makers_masks(tmp_path: Path, name: str, reference: dict[str, Any]) -> None:
    theirs = [_unpacked(reference[name]["masks"][index]) for index in ordered(reference[name])]
    found = sorted(answers(tmp_path, name), key=lambda one: -one.score)
    for one, mask in zip(found, theirs, strict=True):
        ours = np.zeros((SIZE[1], SIZE[0]), np.uint8)
        cv2.fillPoly(ours, [np.floor(np.array(outline)).astype(np.int32) for outline in one.outlines], [1])
        both, either = np.count_nonzero(ours & mask), np.count_nonzero(ours | mask)
        assert either - both <= 6 + 0.04 * either, (one.label, one.box, both, either)  # outlines spare points


@pytest.mark.parametrize(("count", "most"), [(1, 200), (15, 200), (16, 187), (300, 10)])
def test_outlines_of_a_picture_are_bounded(tmp_path: Path, count: int, most: int) -> None:
    """Ragged masks have thousands of corners; a result must fit into a message."""
    random = np.random.default_rng(5)
    rows = np.zeros((1, count, 6 + 4), np.float32)
    rows[0, :, :6] = [0, 0, *SIZE, 0.9, 0]
    rows[0, :, 6:] = random.normal(0, 1, (count, 4))
    masks = random.normal(0, 1, (1, 4, SIZE[1] // 4, SIZE[0] // 4)).astype(np.float32)
    path = exported(
        tmp_path / "b",
        {"output0": rows, "output1": masks},
        task="detection",
        labels=list(LABELS),
        input={"name": "input", "size": list(SIZE)},
        output={"decoder": "yolo_segment", "parameters": {"layout": "v10"}},
    )
    outcome = opened(path).infer(sample(np.zeros((SIZE[1], SIZE[0], 3), np.uint8)))
    assert outcome is not None
    points = [sum(len(outline) for outline in one.outlines) for one in outcome.results]
    assert len(points) == count
    assert max(points) <= most
    assert all(len(outline) >= 3 for one in outcome.results for outline in one.outlines)


def _unpacked(text: str) -> Any:
    bits = np.unpackbits(np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8))
    return bits[: SIZE[0] * SIZE[1]].reshape(SIZE[1], SIZE[0])
