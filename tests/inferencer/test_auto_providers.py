"""`providers: auto`: which file runs on which provider, by what machines have, and what comes of one that fails."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from edgeml import config, models
from edgeml.errors import ConfigError
from edgeml.variants import CPU, Processor
from inferencer.backends.onnx import OnnxBackend
from inferencer.choices import LETHAL, Choice, put
from inferencer.providers import present
from inferencer.trial import ROUNDS
from inferencer.variants import chosen
from inferencer_support import classifier, mean_model
from variants_support import (
    AZURE,
    CUDA,
    FAST,
    FP32,
    HALF,
    TENSORRT,
    VNNI,
    VNNI8,
    Machine,
    changed,
    with_variants,
)

ON_CUDA, HALF_ON_CUDA = f"{CUDA} {FP32}", f"{CUDA} {HALF}"
SPEEDS = {**FAST, ON_CUDA: 0.006, HALF_ON_CUDA: 0.003, f"{TENSORRT} {FP32}": 0.002}
GPU = Machine(VNNI, SPEEDS)
NO_CUDA = f"{CUDA} does not start: no library"
BOTH, MIGRAPHX = (TENSORRT, CUDA), "MIGraphXExecutionProvider"


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    return tmp_path / "variants.json"


# machine, what is asked for, accelerators -> what runs, why, and whether that is remembered
CHOICES: dict[str, tuple[Machine, str, tuple[str, ...], str, str, bool]] = {
    "fp16, where it is fastest": (GPU, "auto", (CUDA,), "fp16 CUDA", "6.00 x as fast as fp32 on the CPU", True),
    "fp32 asked for": (GPU, "fp32", (CUDA,), "fp32 CUDA", "3.00 x as fast as fp32 on the CPU", True),
    "int8 asked for": (GPU, "int8", (CUDA,), "int8 x86_64_vnni", "1.80 x as fast as fp32 here", True),
    "of an unknown processor": (
        *(replace(GPU, processor=Processor("riscv64")), "auto", (CUDA,)),
        *("fp16 CUDA", "6.00 x as fast as fp32 on the CPU", True),
    ),
    "a variant for another one": (GPU, "fp16", (TENSORRT,), "fp32 Tensorrt", "9.00 x as fast as fp32 on the CPU", True),
    "the best of two": (GPU, "auto", BOTH, "fp32 Tensorrt", "9.00 x as fast as fp32 on the CPU", True),
    "the CPU, where it is faster": (
        *(Machine(VNNI, {**FAST, ON_CUDA: 0.05, HALF_ON_CUDA: 0.04}), "auto", (CUDA,)),
        *("int8 x86_64_vnni", "1.80 x as fast as fp32 here", True),
    ),
    "the CPU's fp32": (
        *(Machine(VNNI, {FP32: 0.01, ON_CUDA: 0.05}), "fp32", (CUDA,), "fp32"),
        *("fp32 CUDA is 0.20 x as fast here", True),
    ),
    "one that does not start": (
        *(replace(GPU, absent=frozenset({CUDA})), "auto", (CUDA,)),
        *("int8 x86_64_vnni", f"1.80 x as fast as fp32 here; {NO_CUDA}", False),
    ),
    "none that starts": (replace(GPU, absent=frozenset({CUDA})), "fp32", (CUDA,), "fp32", NO_CUDA, False),
    "the other one": (
        *(replace(GPU, absent=frozenset({TENSORRT})), "fp32", BOTH, "fp32 CUDA"),
        *(f"3.00 x as fast as fp32 on the CPU; {TENSORRT} does not start: no library", True),
    ),
    "a file that does not run there": (
        *(replace(GPU, broken=frozenset({HALF_ON_CUDA})), "auto", (CUDA,)),
        *("fp32 CUDA", "3.00 x as fast as fp32 on the CPU", True),
    ),
    "one that takes too long to start": (
        *(replace(GPU, slow={TENSORRT: 61.0}), "auto", BOTH, "fp16 CUDA", "6.00 x as fast as fp32 on the CPU", True),
    ),
    "one that takes long": (
        *(replace(GPU, slow={TENSORRT: 59.0}), "fp32", BOTH),
        *("fp32 Tensorrt", "9.00 x as fast as fp32 on the CPU", True),
    ),
}


@pytest.mark.parametrize("kind", CHOICES)
def test_the_choice(kind: str, tmp_path: Path, memory: Path) -> None:
    machine, wanted, accelerators, variant, why, remembered = CHOICES[kind]
    machine = replace(machine, opened=[], now=0.0)
    bundle = models.load(with_variants(tmp_path / "b", "x86_64_vnni", "any"))
    found = chosen(bundle, machine.how(wanted, accelerators=accelerators), memory)
    assert (found.ref.variant, found.ref.why) == (variant, why)
    asked = len(machine.opened)
    assert len(set(machine.opened)) == asked
    assert HALF not in machine.opened  # of the CPU
    assert not (CUDA in machine.absent and HALF_ON_CUDA in machine.opened)  # which does not start for another file
    assert chosen(bundle, machine.how(wanted, accelerators=accelerators), memory) == found
    assert (len(machine.opened) == asked) is remembered
    if not remembered:
        assert json.loads(memory.read_bytes()) == {}


def test_what_takes_long_to_start_is_measured_all_the_same(tmp_path: Path, memory: Path) -> None:
    bundle, runs = models.load(classifier(tmp_path / "b")), list[bool]()
    machine = replace(GPU, opened=[], slow={CUDA: 50.0}, ran=lambda: runs.append(True))
    assert chosen(bundle, machine.how(accelerators=(CUDA,)), memory).provider == CUDA
    assert len(runs) == 2 * (1 + ROUNDS)


def test_a_bundle_without_variants_has_providers_to_choose_from(tmp_path: Path, memory: Path) -> None:
    bundle, machine = models.load(classifier(tmp_path / "b")), replace(GPU, opened=[])
    found = chosen(bundle, machine.how(accelerators=(CUDA,)), memory)
    assert (found.ref.variant, found.provider) == ("fp32 CUDA", CUDA)
    assert chosen(bundle, machine.how(), memory) is bundle  # where there is none, nothing is tried or said
    assert machine.opened == [FP32, ON_CUDA]


def test_what_builds_a_program_for_each_size_is_not_tried_for_all_sizes(tmp_path: Path, memory: Path) -> None:
    folder = classifier(tmp_path / "b")
    mean_model(folder / "model.onnx", "any")
    changed(folder, input={"name": "input", "size": [0, 0]})
    machine = replace(GPU, opened=[])
    assert chosen(models.load(folder), machine.how(accelerators=BOTH), memory).provider == CUDA
    assert machine.opened == [FP32, ON_CUDA]


def test_accelerators_and_a_list_of_the_same_are_remembered_apart(tmp_path: Path, memory: Path) -> None:
    bundle, machine = models.load(with_variants(tmp_path / "b", "x86_64_vnni")), replace(GPU, opened=[])
    ways: list[dict[str, Any]] = [{}, {"accelerators": (CUDA,)}, {"accelerators": BOTH}, {"providers": (CPU, CUDA)}]
    for count, way in enumerate([*ways, *ways], 1):
        chosen(bundle, machine.how(**way), memory)
        assert len(json.loads(memory.read_bytes())) == min(count, len(ways))


# What somebody else may have written as the choice, and whether it counts.
MEMORIES: dict[str, tuple[dict[str, Any], bool]] = {
    "as ours": ({"file": FP32, "why": "x", "provider": CUDA}, True),
    "of a version without providers": ({"file": VNNI8, "why": "x"}, True),
    "a provider that is not there": ({"file": FP32, "why": "x", "provider": TENSORRT}, False),
    "a remote one": ({"file": FP32, "why": "x", "provider": AZURE}, False),
    "the CPU by name": ({"file": FP32, "why": "x", "provider": CPU}, False),
    "a file that is not for it": ({"file": VNNI8, "why": "x", "provider": CUDA}, False),
    "fp16 on the CPU": ({"file": HALF, "why": "x"}, False),
    "no provider's name": ({"file": FP32, "why": "x", "provider": "../x"}, False),
    "a number": ({"file": FP32, "why": "x", "provider": 1}, False),
}


@pytest.mark.parametrize("kind", MEMORIES)
def test_a_memory_is_believed_as_far_as_it_can_be_true(kind: str, tmp_path: Path, memory: Path) -> None:
    said, counts = MEMORIES[kind]
    bundle, machine = models.load(with_variants(tmp_path / "b", "x86_64_vnni", "any")), replace(GPU, opened=[])
    chosen(bundle, machine.how(accelerators=(CUDA,)), memory)
    memory.write_text(json.dumps(dict.fromkeys(json.loads(memory.read_bytes()), said)))
    machine.opened.clear()
    found = chosen(bundle, machine.how(accelerators=(CUDA,)), memory)
    assert (not machine.opened) is counts
    assert (found.file, found.provider) == ((said["file"], said.get("provider", "")) if counts else (HALF, CUDA))


def test_one_that_ends_the_process_is_left_after_two_starts(tmp_path: Path, memory: Path) -> None:
    bundle, machine = models.load(classifier(tmp_path / "b")), replace(GPU, opened=[])
    chosen(bundle, machine.how(accelerators=(CUDA,)), memory)
    (key,) = json.loads(memory.read_bytes())
    put(memory, key, Choice(FP32, "x", LETHAL, CUDA))
    found = chosen(bundle, machine.how(accelerators=(CUDA,)), memory)
    assert (found.provider, found.ref.why) == ("", "with others the process ended 2 times")


@pytest.mark.parametrize(
    ("there", "found"),
    [
        ([AZURE, CPU], ()),
        ([CUDA, AZURE, CPU], (CUDA,)),
        ([CPU, CUDA, "XnnpackExecutionProvider", TENSORRT], (TENSORRT, CUDA)),
        (["OpenVINOExecutionProvider", MIGRAPHX, "QNNExecutionProvider", CPU], (MIGRAPHX,)),
    ],
    ids=["none", "one", "two", "another"],
)
def test_accelerators_are_those_that_are_there_and_known(
    there: list[str], found: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: there)
    assert present() == found


def test_this_wheel_has_none() -> None:
    assert present() == ()


# as configured -> the error, or none
CONFIGURED: dict[str, tuple[Any, str]] = {
    "auto": ("auto", ""),
    "a list": ([CPU], ""),
    "none": ([], "b.providers"),
    "auto in a list": ([CPU, "auto"], "b.providers.1: auto takes the place of the list"),
    "an unknown one": (["NoExecutionProvider"], "b.providers.0: NoExecutionProvider is not in this ONNX Runtime"),
    "one as text": (CPU, "expected auto or a list"),
    "nonsense": ([[CPU]], "b.providers.0"),
    "a number": (7, "b.providers"),
}


@pytest.mark.parametrize("may", [True, False], ids=["fallback", "none"])
@pytest.mark.parametrize("kind", CONFIGURED)
def test_what_may_be_configured(kind: str, may: bool) -> None:
    raw, words = CONFIGURED[kind]
    given = {"type": "onnx", "model": "Tiny", "providers": raw, "fallback_to_cpu": str(may).lower()}
    if not words or (kind == "an unknown one" and may):
        config.load(OnnxBackend, given).check("b", "")
        return
    with pytest.raises(ConfigError) as caught:
        config.load(OnnxBackend, given).check("b", "")
    assert words.removeprefix("b.") in str(caught.value)
