"""Which variant of a bundle runs: chosen by flags, answers and times, which are injected; remembered; no obstacle."""

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeml import models
from edgeml.variants import Processor
from inferencer import trial, variants
from inferencer.backends.onnx import OnnxBackend, OnnxModel
from inferencer.choices import KEPT
from inferencer.opening import UNTRIED, Opener
from inferencer.providers import Providers
from inferencer.sources.camera import CameraSource
from inferencer.variants import chosen
from inferencer_support import classifier, make_context, picture, pipeline, sample
from support import eventually
from variants_support import (
    ARM,
    ARM8,
    FAST,
    FP32,
    PLAIN,
    PLAIN8,
    VNNI,
    VNNI8,
    Machine,
    changed,
    models_of,
    with_variants,
)


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "variants.json"


# processor, seconds, what is asked for -> what runs, and why
CHOICES: dict[str, tuple[Machine, str, str, str]] = {
    "the fastest": (Machine(VNNI, FAST), "auto", "int8 x86_64_vnni", "1.80 x as fast as fp32 here"),
    "what the processor runs": (Machine(PLAIN, FAST), "auto", "int8 x86_64", "1.50 x as fast as fp32 here"),
    "the other machine's": (Machine(ARM, FAST), "auto", "int8 aarch64", "2.00 x as fast as fp32 here"),
    "no machine's": (Machine(Processor("riscv64")), "auto", "fp32", "no variant for riscv64"),
    "slower": (Machine(VNNI, {**FAST, VNNI8: 0.02}), "auto", "fp32", "the best variant is 0.90 x as fast here"),
    "slower, but wanted": (
        *(Machine(VNNI, {**FAST, VNNI8: 0.02}), "int8"),
        *("int8 x86_64_vnni", "0.90 x as fast as fp32 here"),
    ),
    "fp32 wanted": (Machine(VNNI, FAST), "fp32", "fp32", "as configured"),
    "what there is not": (Machine(VNNI, FAST), "fp16", "fp32", "no fp16 variant for x86_64_vnni"),
    "broken": (Machine(VNNI, FAST, frozenset({VNNI8})), "int8", "fp32", "int8 x86_64_vnni does not work here"),
    "slow beyond all time": (Machine(ARM, {FP32: 9, ARM8: 3}), "auto", "int8 aarch64", "3.00 x as fast as fp32 here"),
}


@pytest.mark.parametrize("kind", CHOICES)
def test_the_choice(kind: str, tmp_path: Path, memory: Path) -> None:
    machine, wanted, variant, why = CHOICES[kind]
    machine = replace(machine, opened=[], now=0.0)
    bundle = models.load(with_variants(tmp_path / "b", "x86_64", "x86_64_vnni", "aarch64"))
    found = chosen(bundle, machine.how(wanted), memory)
    assert (found.ref.variant, found.ref.why) == (variant, why)
    assert machine.now < 3.0 + 2 * sum(machine.seconds.values())
    asked = len(machine.opened)
    again = chosen(bundle, machine.how(wanted), memory)
    assert again == found
    assert len(machine.opened) == asked  # nothing is tried a second time


def test_without_variants_nothing_is_tried_or_said(tmp_path: Path, memory: Path) -> None:
    bundle, machine = models.load(classifier(tmp_path / "b")), Machine()
    assert chosen(bundle, machine.how(), memory) is bundle
    assert not bundle.ref.variant
    assert not machine.opened
    assert not memory.exists()


@pytest.mark.parametrize("wanted", ["auto", "int8"])
def test_answers_that_are_not_those_of_fp32_are_passed_over(wanted: str, tmp_path: Path, memory: Path) -> None:
    for folder, bias in (("off", 1000.0), ("nan", float("nan"))):
        bundle = models.load(with_variants(tmp_path / folder, "x86_64_vnni", bias=bias))
        assert chosen(bundle, Machine(seconds=FAST).how(wanted), memory).variant == "fp32"


def test_without_time_fp32_runs_or_what_is_asked_for(tmp_path: Path, memory: Path) -> None:
    bundle, machine = models.load(with_variants(tmp_path / "b", "x86_64")), Machine()
    assert chosen(bundle, machine.how(probe_s=0.0), memory).variant == "fp32"
    assert chosen(bundle, machine.how("int8", probe_s=0.0), memory).variant == "int8 x86_64"
    assert chosen(bundle, machine.how(stopping=lambda: True), memory).why == "not tried"
    assert not memory.exists()


def test_it_is_found_anew_for_whatever_it_depends_on(tmp_path: Path, memory: Path) -> None:
    bundle = models.load(with_variants(tmp_path / "b", "x86_64", "x86_64_vnni"))
    other = models.load(with_variants(tmp_path / "c", "x86_64", "x86_64_vnni", bias=0.002))
    machine = Machine(VNNI, FAST)
    ways = [
        (bundle, machine.how()),
        (other, machine.how()),
        (bundle, machine.how(threads=2)),
        (bundle, machine.how("int8")),
        (bundle, machine.how(processor=Processor("x86_64", frozenset({"avx_vnni", "amx_int8"})))),
    ]
    for count, (one, how) in enumerate([*ways, *ways], 1):
        chosen(one, how, memory)
        assert len(machine.opened) == 2 * min(count, len(ways))
    assert len(json.loads(memory.read_bytes())) == len(ways)


def test_what_is_remembered_is_bounded(tmp_path: Path, memory: Path) -> None:
    memory.write_text(json.dumps({str(number): {"file": FP32, "why": "w" * 200} for number in range(KEPT)}))
    chosen(models.load(with_variants(tmp_path / "b", "x86_64")), Machine().how(), memory)
    kept = json.loads(memory.read_bytes())
    assert len(kept) == KEPT
    assert "0" not in kept
    assert "1" in kept


def test_whose_turn_it_is_not_is_told(tmp_path: Path, memory: Path) -> None:
    bundle = models.load(with_variants(tmp_path / "b", "x86_64_vnni"))
    begun, end = threading.Event(), threading.Event()

    def busy() -> bool:
        begun.set()
        end.wait(5)
        end.set()
        return True

    first = threading.Thread(target=lambda: chosen(bundle, Machine(VNNI, FAST).how(stopping=busy), memory))
    first.start()
    try:
        assert begun.wait(10)
        assert chosen(bundle, Machine(VNNI, FAST).how(stopping=lambda: True), memory).why == variants.NOT_TRIED
        assert chosen(bundle, Machine(VNNI, FAST).how(), memory).why == variants.BUSY
        assert not end.is_set()  # while the first is still at it
    finally:
        end.set()
        first.join(10)


def test_nothing_found_is_an_answer_too() -> None:
    assert not trial.differing([{"boxes": np.zeros((0, 6))}], [{"boxes": np.zeros((0, 6))}])


def lying(memory: Path, text: str) -> None:
    """Each choice as `text`."""
    memory.write_text(json.dumps(dict.fromkeys(json.loads(memory.read_bytes()), json.loads(text))))


def link(memory: Path) -> None:
    shutil.move(memory, memory.with_name("elsewhere"))
    memory.symlink_to("elsewhere")


def pipe(memory: Path) -> None:
    memory.unlink()
    os.mkfifo(memory)


def folder(memory: Path) -> None:
    memory.unlink()
    (memory / "x").mkdir(parents=True)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "cut off": lambda file: file.write_bytes(file.read_bytes()[:-5]),
    "foreign": lambda file: file.write_text("[" * 100_000),
    "huge": lambda file: file.write_text(" " * (1 << 17)),
    "binary": lambda file: file.write_bytes(bytes(range(256))),
    "a link": link,
    "a pipe": pipe,
    "a folder": folder,
    "a path": lambda file: lying(file, '{"file": "../../etc/passwd", "why": ""}'),
    "of another bundle": lambda file: lying(file, '{"file": "gone.onnx", "why": "x"}'),
    "too long": lambda file: lying(file, json.dumps({"file": FP32, "why": "x" * 201})),
    "a number": lambda file: lying(file, "1"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_memory_costs_no_more_than_trying_again(kind: str, tmp_path: Path, memory: Path) -> None:
    bundle, machine = models.load(with_variants(tmp_path / "b", "x86_64_vnni")), Machine(VNNI, FAST)
    found = chosen(bundle, machine.how(), memory)
    DAMAGE[kind](memory)
    assert chosen(bundle, machine.how(), memory) == found
    assert len(machine.opened) == 4
    assert kind == "a folder" or json.loads(memory.read_bytes())  # whole again


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[..., OnnxModel]]:
    with models_of(tmp_path / "work") as start:
        yield start


def test_results_and_health_say_which_runs_and_why(tmp_path: Path, running: Callable[..., OnnxModel]) -> None:
    isas = models.load(with_variants(tmp_path / "b", "x86_64", "aarch64")).manifest.variants
    assert {variant.isa for variant in isas} == {"x86_64", "aarch64"}
    model = running(tmp_path / "b", variant="int8", probe_s=0.05)
    seen = set()

    def chosen() -> bool:
        model.poll()
        outcome = model.infer(sample(picture(blue=200)))
        assert outcome is not None
        seen.add((outcome.model.variant, outcome.model.why))
        return outcome.model.variant.startswith("int8")

    eventually(chosen)
    ((_, why),) = [one for one in seen if one[0] in ("int8 x86_64", "int8 aarch64")]
    assert "as fast as fp32 here" in why
    assert seen <= {("fp32", "until its variants are tried"), *((each, why) for each, _ in seen)}
    plain = running(classifier(tmp_path / "plain"))
    outcome = plain.infer(sample(picture(blue=200)))
    assert outcome is not None
    assert outcome.model == models.load(tmp_path / "plain").ref


def test_a_memory_that_lies_stops_no_pipeline(tmp_path: Path, running: Callable[..., OnnxModel]) -> None:
    """It names a variant that does not run: it was good when it was tried, or was never tried."""
    folder = with_variants(tmp_path / "b", "x86_64", "aarch64")
    running(folder, variant="int8", probe_s=0.05)
    eventually((tmp_path / "work" / "variants.json").exists)
    for file in folder.glob("int8*"):
        file.write_bytes(b"no model")
    declared = json.loads((folder / "model.json").read_text())
    for variant in declared["variants"]:
        variant["sha256"] = models.sha256(folder / variant["file"])
    changed(folder, variants=declared["variants"])
    outcome = running(folder, variant="int8", probe_s=0.0).infer(sample(picture(blue=200)))
    assert outcome is not None
    assert outcome.model.variant == "fp32"
    assert "does not work here" in outcome.model.why
    np.testing.assert_allclose(sum(found.score for found in outcome.results), 1, atol=1e-3)


def test_a_choice_is_one_whatever_it_says_of_itself(tmp_path: Path, memory: Path) -> None:
    """Whether others are still to be tried is no matter of the words that were remembered."""
    bundle, machine = models.load(with_variants(tmp_path / "b", "x86_64")), Machine(PLAIN, FAST)
    chosen(bundle, machine.how(), memory)
    told = json.loads(memory.read_text())
    memory.write_text(json.dumps({key: {**choice, "why": UNTRIED[0]} for key, choice in told.items()}))
    backend = OnnxBackend("Tiny", path=str(bundle.path))
    context = make_context(tmp_path / "work")
    providers = Providers(backend.providers, context.health.scope("p"), fallback_to_cpu=False)
    of = pipeline(backend, CameraSource(camera="c"))
    opener = Opener(machine.how(), (1, 1), of, providers, memory)
    runner = opener.load(bundle.path)
    opener.answers(runner.bundle)
    assert runner.bundle.file == PLAIN8
    assert opener.better(print) is None
