"""A variant that ends the process is left alone after some starts; trying variants holds up nothing else."""

import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeml import models
from edgeml.variants import this_processor
from forked import popen
from inferencer import variants
from inferencer.backends.onnx import OnnxModel
from inferencer.sessions import session_of
from inferencer.trial import How
from inferencer.variants import chosen
from inferencer_support import Recorder, make_context, picture, sample
from support import eventually
from variants_support import (
    CUDA,
    FAST,
    FP32,
    Machine,
    changed,
    models_of,
    runs,
    with_variants,
)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[..., OnnxModel]]:
    with models_of(tmp_path / "work") as start:
        yield start


LETHAL = """
import os, signal, sys
from pathlib import Path
from edgeml import models
from inferencer.trial import How, opened
from inferencer.variants import chosen, known, outlived

def lethal(bundle, how):
    if bundle.file != "model.onnx" or bundle.provider:
        os.kill(os.getpid(), signal.SIGKILL)
    return opened(bundle, how)

bundle, memory = models.load(Path(sys.argv[1])), Path(sys.argv[2])
how = How("int8", 3.0, ("CPUExecutionProvider",), 1, "all", open=lethal, accelerators=sys.argv[3:], patient=False)
found = known(bundle, how, memory)
if found is None:
    found = chosen(bundle, how, memory)
elif found.file != "model.onnx" or found.provider:
    with outlived(found, how, memory):
        lethal(found, how)
print(found.variant, found.why)
"""


@pytest.mark.parametrize("accelerators", [(), (CUDA,)], ids=["variant", "provider"])
@pytest.mark.parametrize("chosen_before", [False, True])
def test_what_ends_the_process_does_so_twice_at_most(
    chosen_before: bool, accelerators: tuple[str, ...], tmp_path: Path
) -> None:
    memory = tmp_path / "variants.json"
    folder = with_variants(tmp_path / "b", *(() if accelerators else ("x86_64", "aarch64")))
    if chosen_before:
        bundle, machine = models.load(folder), Machine(this_processor(), {**FAST, f"{CUDA} {FP32}": 0.001})
        assert chosen(bundle, machine.how("int8", accelerators=accelerators), memory).variant != "fp32"
    ends = []
    for _ in range(3):
        process = popen(
            [sys.executable, "-c", LETHAL, folder, memory, *accelerators], stdout=subprocess.PIPE, text=True
        )
        said, _ = process.communicate(timeout=60)
        ends.append((process.returncode, said.strip()))
    others = "others" if accelerators else "variants"
    assert ends == [(-9, ""), (-9, ""), (0, f"fp32 with {others} the process ended 2 times")]


def test_what_opens_is_counted_until_it_did(
    tmp_path: Path, running: Callable[..., OnnxModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    memory = tmp_path / "work" / "variants.json"

    def begun() -> list[int]:
        return [one.get("begun", 0) for one in json.loads(memory.read_bytes()).values()]

    def spy(bundle: models.Bundle, **settings: Any) -> Any:
        seen.append(begun())
        return session_of(bundle, **settings)

    folder = with_variants(tmp_path / "b", "x86_64", "aarch64")
    first = running(folder, variant="int8", probe_s=0.05)
    eventually(lambda: first.poll() and runs(first).startswith("int8"))
    monkeypatch.setattr("inferencer.opening.session_of", spy)
    assert runs(running(folder, variant="int8")).startswith("int8")
    assert seen == [[1]]
    assert begun() == [0]


def test_an_activation_waits_for_no_trial(
    tmp_path: Path, running: Callable[..., OnnxModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    trials: list[bool] = []

    def endless(bundle: models.Bundle, how: How, memory: Path) -> models.Bundle:
        trials.append(True)
        if len(trials) > 1:
            return chosen(bundle, how, memory)
        eventually(how.stopping)
        return bundle.using(FP32, variants.NOT_TRIED)

    monkeypatch.setattr(variants, "chosen", endless)
    model = running(with_variants(tmp_path / "b", "x86_64", "aarch64"), variant="int8", probe_s=0.05)
    eventually(lambda: trials)
    order = {"model": "Tiny", "version": "1.0.0", "path": "", "request_id": "r"}
    model.activate("t", json.dumps(order).encode())
    eventually(lambda: model.poll() and runs(model).startswith("int8"))
    assert len(trials) == 2


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A driver that a trial does not come out of, set once it is in it."""
    begun, end, open_session = threading.Event(), threading.Event(), models.open_session

    def opened(bundle: models.Bundle, **settings: Any) -> Any:
        if threading.current_thread().name == "variants" and bundle.file != FP32:
            begun.set()
            end.wait(30)
        return open_session(bundle, **settings)

    monkeypatch.setattr(models, "open_session", opened)
    yield begun
    end.set()
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == "variants"])


def test_a_trial_that_hangs_holds_up_nothing_else(
    tmp_path: Path, running: Callable[..., OnnxModel], stuck: threading.Event
) -> None:
    ipc, memory = Recorder(), tmp_path / "work" / "variants.json"
    model = running(with_variants(tmp_path / "a", "x86_64", "aarch64"), make_context(tmp_path / "work", ipc))
    assert stuck.wait(20)
    model.activate("t", json.dumps({"model": "Tiny", "version": "1.0.0", "path": "", "request_id": "r"}).encode())
    eventually(lambda: [each for each in ipc.on("edgeml/model/Tiny/status") if each.get("request_id") == "r"])
    other = running(with_variants(tmp_path / "b", "x86_64", "aarch64"))
    changed(tmp_path / "b", version="2.0.0")
    eventually(lambda: other.poll() and version(other) == "2.0.0")
    model.close()
    other.close()
    assert not [thread for thread in threading.enumerate() if "loader" in thread.name]
    assert json.loads(memory.read_bytes()) == {}  # it is no fault of the variant either


def version(model: OnnxModel) -> str:
    outcome = model.infer(sample(picture(blue=200)))
    assert outcome is not None
    return outcome.model.version


def test_who_is_told_to_end_ends_by_no_fault_of_the_variant(
    tmp_path: Path, running: Callable[..., OnnxModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory, begun, end = tmp_path / "work" / "variants.json", threading.Event(), threading.Event()

    def endless(bundle: models.Bundle, how: How, memory: Path) -> models.Bundle:
        with variants.outlived(bundle, how, memory):
            begun.set()
            end.wait(10)
        return bundle

    monkeypatch.setattr(variants, "chosen", endless)
    model = running(with_variants(tmp_path / "b", "x86_64", "aarch64"))
    try:
        assert begun.wait(10)
        assert [one["begun"] for one in json.loads(memory.read_bytes()).values()] == [1]
        model.close()
        assert json.loads(memory.read_bytes()) == {}
    finally:
        end.set()
