"""Variants that scripts/optimize makes of a small model: what is kept, what it writes, and what it refuses."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import agreement
import optimize
from bundles import elsewhere, quantize
from bundles.trials import LOST, Row
from edgeml import models
from edgeml.bundle import Bundle
from edgeml.messages import Classification, Detection
from edgeml.variants import Processor
from optimize_support import SIDE, coloured, colours, pictures
from ota_support import colour_files
from quantize_support import largest_pair

Arguments = Callable[..., list[str]]


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Arguments:
    """On a processor with VNNI, on which variants are twice as fast."""
    monkeypatch.setattr(optimize, "this_processor", lambda: Processor("x86_64", frozenset({"avx_vnni"})))
    monkeypatch.setattr(optimize, "faster", lambda *_: 2.0)
    folders = ["--calibration", str(pictures(tmp_path / "c", 1)), "--evaluate", str(pictures(tmp_path / "e", 2))]
    return lambda *more: [str(tmp_path / "bundle"), *folders, *more]


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return colours(tmp_path / "bundle")


def test_variants_are_made_judged_and_written(
    bundle: Path, tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    plan, plot, out = tmp_path / "variants.json", tmp_path / "plot.png", tmp_path / "out"
    more = ["--plan", str(plan), "--plot", str(plot), "--output", str(out)]
    assert optimize.main(arguments(*more, "--run", f"aarch64={sys.executable}")) == 0
    made = models.load(out)
    assert [variant.name for variant in made.manifest.variants] == ["int8 x86_64_vnni", "int8 aarch64"]
    assert all(variant.accuracy["top1_agreement"] == 1 for variant in made.manifest.variants)
    assert not models.load(bundle).manifest.variants
    assert plot.stat().st_size > 1000
    told = capsys.readouterr().out
    assert all(method in told for method in ("minmax", "entropy", "percentile"))
    again = quantize.variants(made.read("model.onnx"), quantize.read_plan(plan))  # as a build does, without pictures
    assert again == {variant.file: made.read(variant.file) for variant in made.manifest.variants}


def test_each_kind_of_processor_gets_its_own_numbers(bundle: Path, tmp_path: Path, arguments: Arguments) -> None:
    python, before = sys.executable, tmp_path / "before.json"
    before.hardlink_to(bundle / "model.json")
    assert optimize.main(arguments("--run", f"x86_64={python}", "--run", f"aarch64={python}")) == 0
    made = models.load(bundle)
    assert "variants" not in json.loads(before.read_text())  # a new file has taken its place, in one step
    picture = {"input": np.random.default_rng(3).uniform(0, 4, (1, 3, SIDE, SIDE)).astype(np.float32)}
    (expected,) = models.open_session(made).run(None, picture)
    kinds = {}
    for variant in made.manifest.variants:
        (found,) = models.open_session(made.using(variant.file)).run(None, picture)
        np.testing.assert_allclose(found, expected, atol=0.1 * np.abs(expected).max())
        graph = onnx.load_from_string(made.read(variant.file)).graph
        arrays = [numpy_helper.to_array(one) for one in graph.initializer]
        small = all(largest_pair(one) <= 128 for one in arrays if one.dtype == np.int8 and one.ndim > 1)
        kinds[variant.isa] = (any(one.dtype == np.uint8 for one in arrays), small)
    assert kinds == {"x86_64_vnni": (True, False), "x86_64": (True, True), "aarch64": (False, False)}


def test_a_processor_elsewhere_has_nodes_in_float_of_its_own(
    bundle: Path, tmp_path: Path, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = optimize.judged

    def strict(bundle: Bundle, plan: quantize.Plan, *others: Any) -> Row:
        row = judged(bundle, plan, *others)
        return row if row.isa != "aarch64" or row.floats else replace(row, verdict=LOST)

    monkeypatch.setattr(optimize, "judged", strict)
    plan = tmp_path / "variants.json"
    assert optimize.main(arguments("--run", f"aarch64={sys.executable}", "--plan", str(plan))) == 0
    made = models.load(bundle)
    assert [(isa, len(names)) for isa, names in quantize.read_plan(plan).excluded.items()] == [("aarch64", 1)]
    again = quantize.variants(made.read("model.onnx"), quantize.read_plan(plan))
    assert again == {variant.file: made.read(variant.file) for variant in made.manifest.variants}


def test_arrays_of_pictures_are_as_good(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / "some.npy", coloured(1))
    given = optimize.samples(models.load(bundle), tmp_path / "arrays")
    np.testing.assert_array_equal(given, optimize.samples(models.load(bundle), pictures(tmp_path / "files", 1)))


@pytest.mark.parametrize(("min_gain", "kept"), [("2", True), ("2.01", False)])
def test_how_much_faster_is_for_the_user_to_say(min_gain: str, kept: bool, bundle: Path, arguments: Arguments) -> None:
    assert optimize.main(arguments("--method", "minmax", "--min-gain", min_gain)) == (0 if kept else 1)
    assert bool(models.load(bundle).manifest.variants) == kept


def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimize, "faster", lambda *_: 1.01)


def inaccurate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimize, "loss", lambda _: 0.02)


def foreign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimize, "this_processor", lambda: Processor("riscv64"))


@pytest.mark.parametrize(
    ("change", "words"), [(slow, "no variant is faster"), (inaccurate, "no variant is"), (foreign, "riscv64")]
)
def test_a_bundle_without_a_good_variant_stays_as_it_is(
    change: Callable[[Any], None],
    words: str,
    bundle: Path,
    arguments: Arguments,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change(monkeypatch)
    before = {path.name: path.read_bytes() for path in bundle.iterdir()}
    assert optimize.main(arguments("--method", "minmax")) == 1
    assert words in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == before


@pytest.mark.parametrize(
    ("command", "words"),
    [("false", "false: "), ("sh -c 'exec sleep 60'", "no answer in"), ("no-such-program-here", "no-such-program-here")],
)
def test_a_processor_elsewhere_that_does_not_answer_is_named(
    command: str,
    words: str,
    bundle: Path,
    arguments: Arguments,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(elsewhere, "ANSWER_S", 0.2)
    assert optimize.main(arguments("--method", "minmax", "--run", f"aarch64={command}")) == 1
    assert words in capsys.readouterr().err
    assert not json.loads((bundle / "model.json").read_text()).get("variants")


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (None, "no pictures in it"),
        (np.zeros((2, 8, 8, 3)), "expected pictures"),
        (np.zeros((2, 3, 8, 8), np.uint8), "expected pictures"),
        (np.zeros(0, np.uint8), "some.npy: cannot reshape"),
        (np.array([None]), "some.npy: Object arrays cannot be loaded"),
    ],
    ids=["none", "floats", "planes", "empty", "objects"],
)
def test_a_folder_without_samples_is_named(
    array: Any, words: str, bundle: Path, tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other").mkdir()
    if array is not None:
        np.save(tmp_path / "other" / "some.npy", array)
    assert optimize.main(arguments("--evaluate", str(tmp_path / "other"))) == 1
    assert words in capsys.readouterr().err


def test_where_nothing_is_found_nothing_is_judged(
    bundle: Path, arguments: Arguments, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    described = json.loads((bundle / "model.json").read_text())
    (bundle / "model.json").write_text(json.dumps({**described, "task": "detection"}))
    monkeypatch.setattr(optimize, "answers", lambda *_: [[]] * 8)
    assert optimize.main(arguments()) == 1
    assert "fp32 finds nothing there" in capsys.readouterr().err
    assert not models.load(bundle).manifest.variants


def test_a_model_without_products_is_left_alone(
    tmp_path: Path, arguments: Arguments, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bundle").mkdir()
    for name, content in colour_files("1.0.0").items():
        (tmp_path / "bundle" / name).write_bytes(content)
    assert optimize.main(arguments()) == 1
    assert "there is nothing to quantize" in capsys.readouterr().err


def box(x: float, label: str = "face") -> Detection:
    return Detection(label, 0.9, (x, 0.0, 10.0, 10.0))


@pytest.mark.parametrize(
    ("found", "expected", "measure"),
    [
        ([[box(0)]], [[box(0)]], 1.0),
        ([[box(2)]], [[box(0)]], 1.0),  # two thirds of them are shared
        ([[box(6)]], [[box(0)]], 0.0),
        ([[box(0, "hand")]], [[box(0)]], 0.0),
        ([[box(0), box(0)]], [[box(0)]], 0.66667),
        ([[]], [[box(0)]], 0.0),
        ([[]], [[]], 1.0),
    ],
)
def test_boxes_agree_where_they_cover_each_other(found: Any, expected: Any, measure: float) -> None:
    assert agreement.compared("detection", found, expected)["box_agreement"] == measure


def scored(**scores: float) -> list[Classification]:
    return [Classification(label, score) for label, score in scores.items()]


@pytest.mark.parametrize(
    ("found", "measure", "same"),
    [
        (scored(cup=0.9, mug=0.1), 1.0, 1.0),
        (scored(mug=0.5, cup=0.4), 0.98, 0.0),  # as good as alike
        (scored(dog=0.9), 0.6, 0.0),
        (scored(fish=1.0), 0.5, 0.0),  # which fp32 does not know at all
        ([], 0.5, 0.0),  # as of scores that are no numbers
    ],
)
def test_labels_agree_by_what_fp32_would_lose(found: Any, measure: float, same: float) -> None:
    expected = [scored(cup=0.5, mug=0.48, dog=0.1)]
    compared = agreement.compared("classification", [found], expected)
    assert compared["expected_top1"] == pytest.approx(measure)
    assert compared["top1_agreement"] == same


def test_numbers_agree_by_what_they_are_off() -> None:
    expected = [np.array([0.0, 2.0])]
    assert agreement.compared("regression", [np.array([0.1, 2.1])], expected)["agreement"] == pytest.approx(0.9)
    assert agreement.loss(agreement.compared("anomaly", [np.array([0.0, np.nan])], expected)) == 1
