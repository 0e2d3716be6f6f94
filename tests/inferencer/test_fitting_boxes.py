"""Models of boxes whose outputs do not fit the decoder that model.json names, and those that do."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeml.errors import BackendError, BundleError
from edgeml.messages import Classification, Detection
from fitting_support import YOLO, Outputs, answered, assert_refused, exported, floats, v8

DETECTION: dict[str, Any] = {"task": "detection", "labels": ["bolt", "nut", "screw"]}


def boxes(decoder: str, **parameters: Any) -> dict[str, Any]:
    return {**DETECTION, "output": {"decoder": decoder, "parameters": parameters}}


APART: Outputs = {"boxes": floats(1, 9, 4), "scores": floats(1, 9, 3)}
FINISHED: Outputs = {"boxes": floats(1, 9, 4, value=3), "scores": floats(1, 9), "classes": floats(1, 9, value=1)}
MASKS: Outputs = {"output0": floats(1, 39, 50), "output1": floats(1, 32, 16, 16)}


def pixels() -> Any:
    """A table of YOLOX whose boxes are in pixels already."""
    table = floats(1, 84, 8)
    table[..., 2:4] = 40
    return table


MISFITS: dict[str, tuple[Outputs, dict[str, Any], str]] = {
    "classes that are none": ({"o": floats(1, 300, 6)}, YOLO, "(v10), found classes that are no whole numbers"),
    "boxes after suppression, named v8": ({"o": floats(1, 300, 6)}, v8(layout="v8"), "after suppression: layout v10"),
    "one class, or after suppression": (
        {"output0": floats(1, 300, 6)},
        {**YOLO, "labels": ["bolt"]},
        "expected layout to be named in output.parameters, since v5 and v10 have this shape",
    ),
    "without labels, or after suppression": ({"o": floats(1, 300, 6)}, {**YOLO, "labels": []}, "layout to be named"),
    "square without labels": ({"o": floats(1, 84, 84)}, {**YOLO, "labels": []}, "since v5 and v8 have this shape"),
    "both layouts": ({"o": floats(1, 7, 8)}, YOLO, "since v5 and v8 have this shape"),
    "named wrongly": ({"o": floats(1, 7, 50)}, v8(layout="v5"), "expected [1, n, 8] (v5) for 3 labels"),
    "named otherwise": ({"o": floats(1, 7, 50)}, v8(layout="v9"), "expected v5, v8 or v10 as layout, found 'v9'"),
    "nms beyond sense": ({"o": floats(1, 7, 50)}, v8(nms=45), "expected 0 to 1 as nms, found 45"),
    "nms in words": ({"o": floats(1, 7, 50)}, v8(nms="x"), "expected 0 to 1 as nms, found 'x'"),
    "segmentation": (
        {"output0": floats(1, 39, 50), "output1": floats(1, 32, 16, 16)},
        YOLO,
        "expected boxes alone, this is a segmentation model: decoder yolo_segment; there is output0",
    ),
    "segmentation, boxes named": (
        {"output0": floats(1, 39, 50), "output1": floats(1, 32, 16, 16)},
        {**YOLO, "output": {"decoder": "yolo", "name": "output0"}},
        "looks like masks: decoder yolo_segment",
    ),
    "pose": ({"output0": floats(1, 56, 80)}, {**YOLO, "labels": ["person"]}, "looks like keypoints: decoder yolo_pose"),
    "rotated": ({"o": floats(1, 20, 80)}, {**YOLO, "labels": list("abcdefghijklmno")}, "looks like rotated boxes"),
    "pose without labels": ({"o": floats(1, 56, 80, value=312)}, {**YOLO, "labels": []}, "0 to 1, found 312 to 312"),
    "scores without sigmoid": ({"o": floats(1, 7, 50, value=-3)}, YOLO, "expected scores from 0 to 1, found -3 to -3"),
    "boxes and classes apart": (
        {"boxes": floats(1, 300, 4), "logits": floats(1, 300, 80)},
        {**YOLO, "labels": [str(n) for n in range(80)]},
        "(v10) for 80 labels, this looks like boxes and scores apart: decoder ssd, detr",
    ),
    "boxes without labels": ({"o": floats(1, 300, 4)}, {**YOLO, "labels": []}, "[1, n, 5 + classes] (v5), [1, 4"),
    "classes": ({"o": floats(1, 84, 50)}, YOLO, "[1, n, 8] (v5), [1, 7, n] (v8) or [1, n, 6] (v10) for 3 labels"),
    "a flat output": ({"o": floats(1, 85)}, YOLO, "[1, n, 8] (v5), [1, 7, n] (v8) or [1, n, 6] (v10) for 3 labels"),
    "raw heads": ({"o": floats(1, 3, 2, 2, 8)}, YOLO, "there is o float [1, 3, 2, 2, 8]"),
    "no boxes": ({"o": floats(1, 0, 8)}, YOLO, "expected boxes, found an empty output"),
    "suppressed to nothing": ({"o": floats(0, 7)}, YOLO, "there is o float [0, 7]"),
    "whole numbers": ({"o": np.zeros((1, 7, 50), np.int64)}, YOLO, "there is o int64 [1, 7, 50]"),
    "pose with other points": ({"o": floats(1, 58, 80)}, boxes("yolo_pose", keypoints=16), "[1, 55, n] (v8)"),
    "keypoints in words": ({"o": floats(1, 58, 80)}, boxes("yolo_pose", keypoints="17"), "1 to 1024 as keypoints"),
    "keypoints of one number": ({"o": floats(1, 58, 80)}, boxes("yolo_pose", numbers=1), "expected 2 (x, y) or 3 (x"),
    "outlines without masks": ({"o": floats(1, 39, 50)}, boxes("yolo_segment"), "and one output [1, masks, h, w]"),
    "masks of another count": (
        {**MASKS, "output1": floats(1, 30, 16, 16)},
        boxes("yolo_segment"),
        "expected [1, n, 38] (v5), [1, 37, n] (v8) or [1, n, 36] (v10) for 3 labels",
    ),
    "yolox that is decoded": ({"o": floats(1, 84, 8, value=1) * 20}, boxes("yolox"), "expected scores from 0 to 1"),
    "yolox in pixels": ({"o": pixels()}, boxes("yolox"), "these are in pixels already: decoder yolo, layout v5"),
    "yolox with other grids": ({"o": floats(1, 85, 8)}, boxes("yolox"), "expected 1 boxes for 8x8 pixels, found 85"),
    "yolox with odd strides": ({"o": floats(1, 84, 8)}, boxes("yolox", strides=[0]), "whole numbers of pixels as"),
    "one table for ssd": ({"o": floats(1, 9, 4)}, boxes("ssd"), "boxes [1, n, 4] and scores [1, n, c], c being 3"),
    "two that may be scores": (
        {"a": floats(1, 9, 4), "b": floats(1, 9, 4)},
        boxes("ssd"),
        "expected the output of the scores to be named as scores",
    ),
    "ssd without its anchors": (
        {**APART, "boxes": floats(1, 9, 4, value=7)},
        boxes("ssd"),
        "they are relative to anchors (name the file), or unit is pixel",
    ),
    "ssd with logits": ({**APART, "scores": floats(1, 9, 3, value=-4)}, boxes("ssd"), "or activation to be named"),
    "ssd with an unknown file": (APART, boxes("ssd", anchors="a.npy"), "a.npy is not declared in model.json"),
    "ssd with a number as file": (APART, boxes("ssd", anchors=3), "the name of a .npy file as anchors, found 3"),
    "three variances": (APART, boxes("ssd", variances=[1, 2, 3]), "expected four numbers as variances"),
    "a background in words": (APART, boxes("ssd", background="no"), "true or false as background, found 'no'"),
    "detr in pixels": ({**APART, "boxes": floats(1, 9, 4, value=90)}, boxes("detr"), "as fractions of the picture"),
    "detr of other labels": ({**APART, "scores": floats(1, 9, 7)}, boxes("detr"), "[1, n, c], c being 3 or 4; there"),
    "detr without labels": (APART, {**boxes("detr"), "labels": []}, "expected activation to be named"),
    "detr by an unknown way": (APART, boxes("detr", activation="relu"), "auto, sigmoid or softmax as activation"),
    "finished boxes of what": ({**FINISHED, "boxes": floats(1, 9, 4)}, boxes("detections"), "unit to be named"),
    "finished without classes": ({"boxes": floats(1, 9, 4), "scores": floats(1, 9)}, boxes("detections"), "of classes"),
    "finished with logits": ({**FINISHED, "scores": floats(1, 9, value=-3)}, boxes("detections"), "0 to 1 in scores"),
    "a first class in words": (FINISHED, boxes("detections", first_class="1"), "number as first_class, found '1'"),
    "an unknown form": (FINISHED, boxes("detections", boxes="ltrb"), "xyxy, yxyx, xywh or cxcywh as boxes, found"),
    "an unknown unit": (FINISHED, boxes("detections", unit="cm"), "pixel, fraction or source as unit, found 'cm'"),
}  # fmt: skip


@pytest.mark.parametrize("fault", MISFITS)
def test_outputs_that_do_not_fit_are_refused_in_one_sentence(tmp_path: Path, fault: str) -> None:
    assert_refused(tmp_path / "b", *MISFITS[fault])


# --- what the makers' own code (test_makers.py) does not show ---

FORMS = {
    "xyxy": [2, 3, 6, 8],
    "yxyx": [3, 2, 8, 6],
    "xywh": [2, 3, 4, 5],
    "cxcywh": [4, 5.5, 4, 5],
}


@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("unit", ["pixel", "fraction", "source"])
@pytest.mark.parametrize("form", FORMS)
def test_finished_boxes_are_read_in_every_form_and_unit(tmp_path: Path, form: str, unit: str, batch: bool) -> None:
    rows: Any = np.array([FORMS[form], [0, 0, 0, 0], FORMS[form]], np.float32)
    rows = rows / 8 if unit == "fraction" else rows * 2 if unit == "source" else rows
    outputs = {"boxes": rows, "scores": np.array([0.5, 0.1, 0.9], np.float32), "labels": np.array([1, 1, 2])}
    if batch:
        outputs = {name: value[None] for name, value in outputs.items()}
    declared = boxes("detections", boxes=form, unit=unit, first_class=1)
    found = answered(exported(tmp_path / "b", outputs, **declared))  # a picture of 16 x 16 in an input of 8 x 8
    where = (4.0, 6.0, 8.0, 10.0)
    assert found == [Detection("nut", 0.9, where), Detection("bolt", 0.5, where)]


def test_a_finished_table_holds_corners_score_and_class(tmp_path: Path) -> None:
    rows = np.array([[[0.25, 0.375, 0.75, 1, 0.9, 1], [0, 0, 0, 0, 0, 0]]], np.float32)
    found = answered(exported(tmp_path / "b", {"o": rows}, **boxes("detections", unit="fraction")))
    assert found == [Detection("nut", 0.9, (4.0, 6.0, 8.0, 10.0))]


# What ultralytics 8.4.190 exports for pictures of 320 x 320, of 80 labels.
EXPORTS: dict[str, tuple[str, dict[str, tuple[int, ...]]]] = {
    "yolov5nu, yolov8n, yolov10n, yolo11n, yolo12n, yolo26n": ("yolo", {"output0": (1, 84, 2100)}),
    "yolov10n and yolo26n, end to end": ("yolo", {"output0": (1, 300, 6)}),
    "yolov8n-seg": ("yolo_segment", {"output0": (1, 116, 2100), "output1": (1, 32, 80, 80)}),
    "yolo26n-seg, end to end": ("yolo_segment", {"output0": (1, 300, 38), "output1": (1, 32, 80, 80)}),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_the_shapes_that_people_export_need_no_layout(tmp_path: Path, name: str) -> None:
    decoder, shapes = EXPORTS[name]
    outputs = {output: floats(*shape, value=0) for output, shape in shapes.items()}
    declared = {**boxes(decoder), "labels": [str(number) for number in range(80)]}
    assert answered(exported(tmp_path / "b", outputs, **declared)) == []


def test_classes_below_the_first_have_no_label(tmp_path: Path) -> None:
    outputs = {**FINISHED, "classes": floats(1, 9, value=0)}
    found = answered(exported(tmp_path / "b", outputs, **boxes("detections", first_class=1)))
    assert {one.label for one in found} == {"-1"}


@pytest.mark.parametrize("count", [0, 1, 2])
def test_any_number_of_finished_boxes_will_do(tmp_path: Path, count: int) -> None:
    outputs = {"boxes": floats(count, 4, value=3), "scores": floats(count), "labels": np.zeros(count, np.int64)}
    assert len(answered(exported(tmp_path / "b", outputs, **boxes("detections")))) == count


@pytest.mark.parametrize(
    ("end", "given", "parameters"),
    [
        ("Sigmoid", [[2.0, -3, 1]], {}),
        ("", [[2.0, -3, 1]], {}),
        ("", [[0.880797, 0.047426, 0.731059]], {"apply_sigmoid": False}),
    ],
)
def test_labels_that_do_not_exclude_each_other(
    tmp_path: Path, end: str, given: list[list[float]], parameters: dict[str, Any]
) -> None:
    declared = {"output": {"decoder": "sigmoid", "parameters": parameters}}
    found = answered(
        exported(tmp_path / "b", {"o": np.array(given, np.float32)}, end=end, **declared), score_threshold=0.5
    )
    assert [(one.label, round(one.score, 3)) for one in found] == [("a", 0.881), ("c", 0.731)]
    assert all(isinstance(one, Classification) for one in found)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["boxes", "scores"])
@pytest.mark.parametrize("decoder", ["ssd", "detr", "detections"])
def test_what_is_not_finite_is_an_error_and_not_nothing(tmp_path: Path, decoder: str, name: str, value: float) -> None:
    outputs = dict(FINISHED if decoder == "detections" else APART)
    outputs[name] = np.full_like(outputs[name], value)
    with pytest.raises((BundleError, BackendError), match=r"finite|between 0 and 1|0 to 1|fractions"):
        answered(exported(tmp_path / "b", outputs, **boxes(decoder)))
