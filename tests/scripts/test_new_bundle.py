"""A bundle that scripts/new-bundle writes around an ONNX file: what it proposes, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest

import decoder_cases as cases
import new_bundle
from fitting_support import exported, floats, opened
from inferencer_support import picture, sample

NAMES = str(dict(enumerate(cases.LABELS)))


def file(folder: Path, outputs: dict[str, Any], size: tuple[int, int] = cases.SIZE, **metadata: str) -> Path:
    """An ONNX file on its own that gives these outputs, with what its exporter says of it."""
    path = exported(folder / "model", outputs, input={"name": "input", "size": list(size)}) / "model.onnx"
    model = onnx.load(path)
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)
    return path


def made(tmp_path: Path, path: Path, *options: str) -> dict[str, Any]:
    """The model.json that the script writes."""
    assert new_bundle.main(["--onnx", str(path), "--output", str(tmp_path / "bundle"), *options]) == 0
    found: dict[str, Any] = json.loads((tmp_path / "bundle" / "model.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("name", [name for name in cases.CASES if name not in ("yolox", "detr", "rt_detr", "ssd")])
def test_the_decoder_that_fits_is_proposed(tmp_path: Path, name: str) -> None:
    path = file(tmp_path, cases.CASES[name][1]().outputs, author="Ultralytics", task="detect", names=NAMES)
    manifest = made(tmp_path, path)
    assert manifest["output"]["decoder"] == cases.CASES[name][0]
    assert manifest["input"]["resize"] == "letterbox"
    assert manifest["input"]["scale"] == pytest.approx(1 / 255)
    outcome = opened(tmp_path / "bundle").infer(sample(picture(size=(cases.SIZE[1], cases.SIZE[0]))))
    assert outcome is not None
    assert {one.label for one in outcome.results} <= set(cases.LABELS)


@pytest.mark.parametrize(("name", "decoder"), [("detr", "detr"), ("rt_detr", "detr"), ("yolox", "yolox")])
def test_a_decoder_may_be_named(tmp_path: Path, name: str, decoder: str) -> None:
    case = cases.CASES[name][1]()
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(cases.LABELS) + "\n", encoding="utf-8")
    options = ["--labels", str(labels), "--parameters", json.dumps(case.parameters), "--decoder", decoder]
    manifest = made(tmp_path, file(tmp_path, case.outputs), *options)
    assert (manifest["output"]["decoder"], manifest["labels"]) == (decoder, list(cases.LABELS))


def test_the_answer_to_a_picture_is_shown_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = tmp_path / "photo.png"
    cv2.imwrite(str(photo), np.zeros((cases.SIZE[1], cases.SIZE[0], 3), np.uint8))
    path = file(tmp_path, cases.yolo_segment().outputs, names=NAMES)
    made(tmp_path, path, "--picture", str(photo))
    drawn = cv2.imread(str(tmp_path / "bundle-photo.jpg"))
    assert drawn is not None
    assert drawn.shape == (cases.SIZE[1], cases.SIZE[0], 3)
    assert np.count_nonzero(drawn[:, :, 1] > 100) > 200
    told = capsys.readouterr().out
    assert '{"label":"bolt","score":0.' in told
    assert "decoder yolo_segment: the first that fits" in told


def test_numbers_and_classes_have_bundles_too(tmp_path: Path) -> None:
    path = exported(tmp_path / "a", {"o": floats(1, 1)}, input={"name": "input", "shape": [4]}) / "model.onnx"
    manifest = made(tmp_path / "a", path)
    assert (manifest["task"], manifest["output"]["decoder"]) == ("regression", "regression")
    assert manifest["input"] == {"name": "input", "layout": "tensor", "shape": [4], "dtype": "float32"}
    scores = {"o": np.array([[0.0, 9, 0]], np.float32)}
    manifest = made(tmp_path, file(tmp_path, scores, author="Ultralytics", task="classify"), "--pixels", "imagenet")
    assert (manifest["task"], manifest["output"]["decoder"]) == ("classification", "softmax")
    assert manifest["input"]["resize"] == "crop"
    assert manifest["input"]["mean"] == [0.485, 0.456, 0.406]


FAULTS = {
    "no file": (None, [], "No such file"),
    "no model": (b"x" * 99, [], "ONNX Runtime cannot load it"),
    "nothing that fits": ({"o": floats(1, 9, 9, 9, 9)}, [], "no decoder fits:"),
    "a decoder that does not fit": ({"o": floats(1, 3)}, ["--decoder", "ssd"], "- ssd: model.onnx: decoder ssd cannot"),
    "no picture": ({"o": floats(1, 3)}, ["--picture", "absent.png"], "absent.png: not a readable image"),
    "no labels": ({"o": floats(1, 3)}, ["--labels", "absent.txt"], "absent.txt"),
    "parameters that are no JSON": ({"o": floats(1, 3)}, ["--parameters", "{"], "--parameters: expected a JSON object"),
    "parameters that are a list": ({"o": floats(1, 3)}, ["--parameters", "[]"], "--parameters: expected a JSON object"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_cannot_be_done_is_said_and_leaves_nothing(
    tmp_path: Path, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content, options, words = FAULTS[fault]
    path = tmp_path / "model.onnx" if not isinstance(content, dict) else file(tmp_path, content)
    if isinstance(content, bytes):
        path.write_bytes(content)
    assert new_bundle.main(["--onnx", str(path), "--output", str(tmp_path / "bundle"), *options]) == 1
    assert words in capsys.readouterr().out
    assert not list(tmp_path.glob("*bundle*"))


def test_a_folder_that_is_there_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    path = file(tmp_path, {"o": floats(1, 3)})
    assert new_bundle.main(["--onnx", str(path), "--output", str(tmp_path / "bundle")]) == 1
    assert not list((tmp_path / "bundle").iterdir())
