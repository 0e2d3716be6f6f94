"""Variants are not tried while the CPU is slowed down, but for one whose patience is at an end; /sys is a folder."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeml import models
from edgeml.place import Place
from inferencer import opening
from inferencer.backends.onnx import OnnxModel
from inferencer.variants import HOT, chosen
from inferencer_support import make_context
from support import eventually
from throttling_support import COOLING, COUNT, FIRMWARE, files
from variants_support import FAST, VNNI, Machine, models_of, runs, with_variants

HOT_NOW, COLD_NOW = {FIRMWARE: "4\n"}, {FIRMWARE: "40000\n"}
# at first, at each run, patient -> tried, remembered
TRIALS: dict[str, tuple[dict[str, str], dict[str, str], bool, bool, bool]] = {
    "at full speed": (COLD_NOW, {}, True, True, True),
    "nothing is told": ({}, {}, True, True, True),
    "slowed down": (HOT_NOW, {}, True, False, False),
    "for long": (HOT_NOW, {}, False, True, False),
    "no longer at the end": (HOT_NOW, COLD_NOW, False, True, False),
    "from its middle on": (COLD_NOW, HOT_NOW, True, True, False),
    "by the board": ({f"{COOLING}0/type": "cpufreq-cpu0", f"{COOLING}0/cur_state": "1"}, {}, True, False, False),
    "as a PC counts": ({COUNT: "1"}, {COUNT: "2"}, True, True, False),
    "as a PC counted before": ({COUNT: "1"}, {COUNT: "1"}, True, True, True),
}


@pytest.mark.parametrize("kind", TRIALS)
def test_what_is_measured_while_it_is_slow_is_not_remembered(kind: str, tmp_path: Path) -> None:
    before, meanwhile, patient, tried, remembered = TRIALS[kind]
    place, memory = files(tmp_path / "root", before), tmp_path / "variants.json"
    machine = Machine(VNNI, FAST, ran=lambda: files(tmp_path / "root", meanwhile))
    bundle = models.load(with_variants(tmp_path / "b", "x86_64_vnni"))
    found = chosen(bundle, machine.how(place=place, patient=patient), memory)
    assert found.variant == ("int8 x86_64_vnni" if tried else "fp32")
    assert (found.why == HOT, bool(machine.opened)) == (not tried, tried)
    assert bool(memory.exists() and json.loads(memory.read_bytes())) is remembered


def test_a_moment_is_enough(tmp_path: Path) -> None:
    root, memory, ran = tmp_path / "root", tmp_path / "variants.json", list[bool]()

    def run() -> None:
        ran.append(True)
        files(root, HOT_NOW if 6 <= len(ran) < 10 else COLD_NOW)

    machine = Machine(VNNI, FAST, ran=run)
    bundle = models.load(with_variants(tmp_path / "b", "x86_64_vnni"))
    assert chosen(bundle, machine.how(place=files(root, COLD_NOW)), memory).variant == "int8 x86_64_vnni"
    assert len(ran) > 10
    assert json.loads(memory.read_bytes()) == {}


def test_what_is_known_runs_however_slow_it_is(tmp_path: Path) -> None:
    memory, machine = tmp_path / "variants.json", Machine(VNNI, FAST)
    bundle = models.load(with_variants(tmp_path / "b", "x86_64_vnni"))
    found = chosen(bundle, machine.how(), memory)
    assert chosen(bundle, machine.how(place=files(tmp_path / "root", HOT_NOW)), memory) == found


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[..., OnnxModel]]:
    with models_of(tmp_path / "work") as start:
        yield start


def start(tmp_path: Path, running: Callable[..., OnnxModel]) -> tuple[OnnxModel, Callable[[], str], Place]:
    """A model on a hot device, and what its health says of variants."""
    device, context = files(tmp_path / "root", HOT_NOW), make_context(tmp_path / "work")
    folder = with_variants(tmp_path / "b", "x86_64", "aarch64", bias=0.03)
    model = running(folder, context, device, variant="int8", probe_s=0.05)

    def said() -> str:
        found: Any = context.health.report().variants
        return " ".join(found.values()) if isinstance(found, dict) else ""

    return model, said, device


def test_fp32_answers_until_it_is_cool(tmp_path: Path, running: Callable[..., OnnxModel]) -> None:
    model, said, device = start(tmp_path, running)
    eventually(lambda: said() == f"fp32: {HOT}")
    assert runs(model) == "fp32"
    files(device.root, COLD_NOW)
    eventually(lambda: model.poll() and runs(model).startswith("int8"))
    assert "as fast as fp32 here" in said()


def test_whoever_waits_for_it_ends_at_once(tmp_path: Path, running: Callable[..., OnnxModel]) -> None:
    model, said, _ = start(tmp_path, running)
    eventually(lambda: said() == f"fp32: {HOT}")
    model.close()
    assert not [thread for thread in threading.enumerate() if "loader" in thread.name]


def test_patience_has_an_end(
    tmp_path: Path, running: Callable[..., OnnxModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "PATIENCE_S", 0.0)
    model, _, _ = start(tmp_path, running)
    eventually(lambda: model.poll() and runs(model).startswith("int8"))
    assert json.loads((tmp_path / "work" / "variants.json").read_bytes()) == {}
