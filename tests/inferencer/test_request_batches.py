"""Requests that wait together are answered together where the model gains from it, and each for itself."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from chains_support import FREE
from edgeml.errors import BackendError
from edgeml.outbox import Outbox
from inferencer import image_files
from inferencer.assembly import Assembly
from inferencer.backends.onnx import OnnxBackend
from inferencer.sample import Outcome, Sample
from inferencer.sources.request import RequestSource
from inferencer.tasks.decoding import DecodingRunner
from inferencer_support import (
    Recorder,
    classifier,
    deliver,
    describe,
    make_context,
    no_uploads,
    picture,
    pipeline,
    save,
)
from support import eventually

LABELS = ["blue", "green", "red"]


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many samples each run of a session took."""
    found, run = list[int](), onnxruntime.InferenceSession.run

    def counting(session: Any, names: Any, given: Any, *options: Any) -> Any:
        found.append(len(given["input"]))
        return run(session, names, given, *options)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", counting)
    return found


class Waiting:
    """A pipeline whose requests wait until its model is installed."""

    def __init__(self, folder: Path) -> None:
        self.ipc, self.folder = Recorder(), folder
        self.context = make_context(folder / "work", self.ipc)
        self.relay = Outbox(folder / "relay.spool", self.ipc, self.context.health, max_bytes=1 << 20)
        backend = OnnxBackend(model="Tiny", path=str(folder / "bundle"))
        source = RequestSource(allowed_dirs=(str(folder),))
        configured = pipeline(backend, source, score_threshold=0.01)
        self.running = Assembly(self.context, folder, self.relay, no_uploads).start("p", configured)

    def ask(self, name: str) -> None:
        request = {"image_dir": str(self.folder), "fname": name, "request_id": name}
        deliver(self.running, "local/inference", json.dumps(request).encode())

    def answers(self, count: int) -> dict[str, Any]:
        found = eventually(lambda: r if len(r := self.ipc.on("local/result")) == count else [], 20, "answers")
        return {each["request_id"]: each for each in found}


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Waiting]:
    made = Waiting(tmp_path)
    yield made
    made.running.worker.stop()
    made.relay.close()


def install(folder: Path, batch: Any = "n", side: int = 8) -> None:
    """A model of any batch, or of one."""
    classifier(folder / "made")
    axes = [helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])]
    given: Any = ("input", TensorProto.FLOAT, [batch, 3, side, side])
    save(folder / "made" / "model.onnx", FREE, axes, given, ("scores", [batch, 3]))
    declared: Any = {"name": "input", "layout": "NCHW", "size": [side, side], "color": "bgr"}
    output = {"decoder": "softmax", "parameters": {"apply_softmax": True}}
    describe(
        folder / "made", "1.0.0", {"task": "classification", "input": declared, "output": output, "labels": LABELS}
    )
    (folder / "made").rename(folder / "bundle")


def pictures(folder: Path, count: int, side: int = 16) -> dict[str, str]:
    """Files, and the label of each."""
    made = {f"{index}.png": LABELS[index % 3] for index in range(count)}
    for name, label in made.items():
        cv2.imwrite(str(folder / name), picture(**{label: 99}, size=(side, side)))
    return made


@pytest.mark.parametrize(
    ("count", "batch", "model_side", "side", "sizes"),
    [
        (1, "n", 8, 16, [1]),
        (9, "n", 8, 16, [9]),
        (20, "n", 8, 16, [16, 4]),
        (9, 1, 8, 16, [1] * 9),
        (9, "n", 40, 16, [3] * 3),
        (4, "n", 96, 16, [1] * 4),
        (3, "n", 8, 256, [1] * 3),
    ],
    ids=["one", "some", "many", "a model of one", "few fit the caches", "a large input", "large pictures"],
)
def test_requests_that_wait_are_answered_together_where_that_is_a_gain(
    waiting: Waiting, runs: list[int], count: int, batch: Any, model_side: int, side: int, sizes: list[int]
) -> None:
    asked = pictures(waiting.folder, count, side)
    for name in asked:
        waiting.ask(name)
    install(waiting.folder, batch, model_side)
    assert {name: answer["label"] for name, answer in waiting.answers(count).items()} == asked
    assert runs[-len(sizes) :] == sizes
    assert waiting.context.health.counter("pipelines.p.inferences") == count


def cut_off(path: Path) -> Path:
    path.write_bytes(b"\x89PNG")
    return path


def of_numbers(path: Path) -> Path:
    path = path.with_suffix(".npy")
    np.save(path, np.zeros(5))
    return path


def a_fault_of_ours(path: Path) -> Path:
    return path.rename(path.with_name("fault.png"))


FAULTS: dict[str, tuple[Callable[[Path], Path], str, list[int]]] = {
    "cut off": (cut_off, "not a JPEG or PNG", [8]),
    "not for this model": (of_numbers, "takes images", [1] * 8),
    "a fault of ours": (a_fault_of_ours, "a fault of ours", [8]),
}


@pytest.mark.parametrize("place", [0, 4, 8])
@pytest.mark.parametrize("fault", FAULTS)
def test_one_that_fails_costs_no_other(
    waiting: Waiting, runs: list[int], monkeypatch: pytest.MonkeyPatch, fault: str, place: int
) -> None:
    def read(path: Path, *given: Any) -> Any:
        if path.name == "fault.png":
            raise RuntimeError("a fault of ours")
        return load(path, *given)

    load = image_files.picture
    monkeypatch.setattr(image_files, "picture", read)
    spoil, reason, sizes = FAULTS[fault]
    asked = pictures(waiting.folder, 9)
    names = list(asked)
    names[place] = bad = spoil(waiting.folder / names[place]).name
    del asked[f"{place}.png"]
    for name in names:
        waiting.ask(name)
    install(waiting.folder)
    answers = waiting.answers(9)
    assert reason in answers.pop(bad)["error"]
    assert {name: answer["label"] for name, answer in answers.items()} == asked
    assert runs[-len(sizes) :] == sizes


@pytest.mark.parametrize("together", [True, False], ids=["together", "one by one"])
def test_one_that_the_model_has_no_answer_to_is_told_so(
    waiting: Waiting, monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    infer, infer_all = DecodingRunner.infer, DecodingRunner.infer_all

    def alone(runner: DecodingRunner, sample: Sample) -> Outcome | None:
        return None if sample.request_id == "4.png" else infer(runner, sample)

    def at_once(runner: DecodingRunner, samples: Sequence[Sample]) -> list[Outcome | None]:
        if not together:
            raise BackendError("not at once")
        answers = zip(samples, infer_all(runner, samples), strict=True)
        return [None if sample.request_id == "4.png" else answer for sample, answer in answers]

    monkeypatch.setattr(DecodingRunner, "infer", alone)
    monkeypatch.setattr(DecodingRunner, "infer_all", at_once)
    asked = pictures(waiting.folder, 9)
    for name in asked:
        waiting.ask(name)
    install(waiting.folder)
    answers = waiting.answers(9)
    del asked["4.png"]
    assert "no answer to this one" in answers.pop("4.png")["error"]
    assert {name: answer["label"] for name, answer in answers.items()} == asked
    assert waiting.context.health.counter("pipelines.p.without_answer") == 1
