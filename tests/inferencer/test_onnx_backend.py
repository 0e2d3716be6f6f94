"""Bundles coming, changing and failing while a pipeline runs."""

import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeml import models
from edgeml.component import Context
from edgeml.errors import BundleError
from edgeml.frames import FrameWriter
from edgeml.outbox import Outbox
from inferencer.assembly import Assembly
from inferencer.backends import onnx as onnx_backend
from inferencer.backends.onnx import OnnxBackend, OnnxModel
from inferencer.sources.camera import CameraSource
from inferencer_support import (
    Recorder,
    classifier,
    deliver,
    make_context,
    no_uploads,
    picture,
    pipeline,
    regressor,
    sample,
)
from support import eventually

STATUS = "edgeml/model/Tiny/status"


@pytest.fixture
def ipc() -> Recorder:
    return Recorder()


@pytest.fixture
def context(tmp_path: Path, ipc: Recorder) -> Context:
    return make_context(tmp_path / "work", ipc)


@pytest.fixture
def model(tmp_path: Path, context: Context, monkeypatch: pytest.MonkeyPatch) -> Iterator[OnnxModel]:
    monkeypatch.setattr(onnx_backend, "POLL_S", 0.05)  # the bundle comes after the first look
    settings = OnnxBackend(model="Tiny", path=str(tmp_path / "current"))
    made = OnnxModel(settings, pipeline(settings, CameraSource(camera="c")), context, "p")
    yield made
    made.close()


def switch(tmp_path: Path, folder: Path) -> None:
    """Point `current` to another version, as components and the updater do."""
    link = tmp_path / "next"
    link.symlink_to(folder)
    link.replace(tmp_path / "current")


def corrupt(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"\x08\x01 this is no graph")
    change(folder, sha256=models.sha256(folder / "model.onnx"))


def change(folder: Path, **fields: Any) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


BROKEN = {
    "corrupt model": (corrupt, "ONNX Runtime cannot load it"),
    "sha256": (lambda folder: change(folder, sha256="0" * 64), "sha256 is"),
    "no model.json": (lambda folder: (folder / "model.json").write_text("{"), "model.json"),
    "no such decoder": (lambda folder: change(folder, output={"decoder": "magic"}), "no decoder 'magic'"),
    "outputs that the decoder cannot read": (
        lambda folder: change(folder, output={"decoder": "centerface"}),
        "cannot read the outputs",
    ),
    "numbers that make no tensor": (
        lambda folder: change(folder, input={"name": "input", "size": [8, 8], "mean": [1, 2]}),
        "do not fit",
    ),
    "another input": (lambda folder: change(folder, input={"name": "x", "size": [8, 8]}), "no input 'x'"),
    "another size": (lambda folder: change(folder, input={"name": "input", "size": [9, 9]}), "does not run"),
    "no thresholds": (
        lambda folder: change(folder, output={"decoder": "anomaly"}, task="anomaly"),
        "thresholds.mae must be 6 numbers",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_bundle_that_does_not_work_is_refused_and_the_running_one_stays(
    tmp_path: Path, model: OnnxModel, context: Context, ipc: Recorder, fault: str
) -> None:
    switch(tmp_path, classifier(tmp_path / "1"))
    eventually(model.poll, 10, "the first version")
    spoil, reason = BROKEN[fault]
    spoil(classifier(tmp_path / "2", "2.0.0"))
    switch(tmp_path, tmp_path / "2")
    model.activate("t", json.dumps({"model": "Tiny", "version": "2.0.0", "path": "", "request_id": "r"}).encode())
    refused = eventually(lambda: [s for s in ipc.on(STATUS) if s["status"] == "refused"], 10, "a refusal")[0]
    assert reason in refused["reason"]
    assert (refused["version"], refused["request_id"]) == ("2.0.0", "r")
    assert model.poll()
    outcome = model.infer(sample(picture(blue=9)))
    assert outcome is not None
    assert (outcome.model.version, outcome.results[0].label) == ("1.0.0", "blue")
    assert reason in str(context.health.report().last_error)


def test_an_activation_is_answered(tmp_path: Path, model: OnnxModel, ipc: Recorder) -> None:
    switch(tmp_path, classifier(tmp_path / "1"))
    eventually(model.poll, 10, "the first version")
    for version, status in (("1.0.0", "accepted"), ("9.0.0", "refused")):
        order = {"model": "Tiny", "version": version, "path": "", "request_id": version}
        model.activate("t", json.dumps(order).encode())
        answer = eventually(lambda: [s for s in ipc.on(STATUS) if s.get("request_id") == version], 5, "status")[0]  # noqa: B023
        assert answer["status"] == status
    model.activate("t", b"nonsense")  # logged, no more


def test_no_frame_is_lost_or_answered_by_half_a_model_while_models_change(tmp_path: Path) -> None:
    ipc = Recorder()
    context = make_context(tmp_path / "work", ipc)
    for number in (1, 2):  # both answer in their own way, and the version says which one it was
        names = [f"{colour}-{number}" for colour in ("blue", "green", "red")]
        classifier(tmp_path / str(number), f"{number}.0.0", labels=names)
    switch(tmp_path, tmp_path / "1")
    settings = OnnxBackend(model="Tiny", path=str(tmp_path / "current"))
    relay = Outbox(context.work / "iot_core.spool", context.ipc, context.health, max_bytes=1 << 20)
    started = Assembly(context, tmp_path, relay, no_uploads).start(
        "p", pipeline(settings, CameraSource(camera="c", policy="every"))
    )
    order = json.dumps({"model": "Tiny", "version": "x", "path": "", "request_id": "r"}).encode()
    stop = threading.Event()
    try:
        with FrameWriter("c", width=16, height=16, slots=16, directory=tmp_path) as writer:
            eventually(lambda: context.health.counter("pipelines.p.models_loaded"), 10, "the model")

            def film() -> None:
                while not stop.wait(0.005):
                    writer.write(picture(green=9))

            filming = threading.Thread(target=film)
            filming.start()
            for turn in range(6):
                before = context.health.counter("pipelines.p.models_loaded")
                switch(tmp_path, tmp_path / str(2 - turn % 2))
                deliver(started, "edgeml/model/Tiny/activate", order)
                eventually(lambda: context.health.counter("pipelines.p.models_loaded") > before, 10, "a swap")  # noqa: B023
                time.sleep(0.05)
            eventually(lambda: len(ipc.on("edgeml/inference/p")) > 60, 10, "results")
            stop.set()
            filming.join()
    finally:
        stop.set()
        started.worker.stop()
        relay.close()
    results = ipc.on("edgeml/inference/p")
    frames = [result["source"]["frame_id"] for result in results]
    assert frames == list(range(frames[0], frames[0] + len(frames)))
    assert {result["model"]["version"] for result in results} == {"1.0.0", "2.0.0"}
    assert all(result["results"][0]["label"] == f"green-{result['model']['version'][0]}" for result in results)
    assert context.health.counter("pipelines.p.failed") == 0


def test_numbers_by_name_or_in_order(tmp_path: Path, context: Context) -> None:
    settings = OnnxBackend(model="Tiny", path=str(regressor(tmp_path / "b")))
    model = OnnxModel(settings, pipeline(settings, CameraSource(camera="c")), context, "p")
    try:
        eventually(model.poll, 10, "the model")
        for values in ([1, 2.5, "3"], {"c": 3, "b": 2.5, "a": 1, "more": 9}):
            outcome = model.infer(sample(values))
            assert outcome is not None
            assert outcome.results.value == pytest.approx(6.5)
    finally:
        model.close()


def test_a_bundle_may_come_later(tmp_path: Path, model: OnnxModel, context: Context) -> None:
    assert "waiting for model Tiny" in context.health.report().notes["p.model"]
    assert not model.poll()
    switch(tmp_path, classifier(tmp_path / "1"))
    eventually(model.poll, 10, "the model")
    assert "p.model" not in context.health.report().notes
    shutil.rmtree(tmp_path / "1")  # uninstalled: what runs goes on
    assert model.infer(sample(picture(red=9))) is not None


def test_a_pipeline_that_is_gone_has_no_problem(
    tmp_path: Path, model: OnnxModel, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large model takes long to load, and may then be refused."""
    loading, go_on = threading.Event(), threading.Event()

    def load(folder: Path) -> Any:
        loading.set()
        go_on.wait(20)
        raise BundleError("too large")

    monkeypatch.setattr(models, "load", load)
    switch(tmp_path, classifier(tmp_path / "1"))
    assert loading.wait(10)
    model.close()
    context.health.forget("p")
    go_on.set()
    eventually(lambda: not any("loader" in thread.name for thread in threading.enumerate()), 20, "its end")
    assert context.health.problems.current() == ()
