"""Tables of kinds: what each line promises, and what a missing library costs."""

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest

import inferencer.tasks
from edgeml import models
from edgeml.config import load
from edgeml.errors import BundleError, ConfigError
from edgeml.kinds import union
from inferencer import backends, sources
from inferencer.assembly import check
from inferencer.backends.onnx import OnnxBackend
from inferencer.config import Config
from inferencer.parts import SourceSettings
from inferencer.sample import Outcome, Sample, Timer
from inferencer.sources.camera import CameraSource
from inferencer.sources.mqtt import MqttSource
from inferencer.tasks.runner import Runner
from inferencer_support import classifier, pipeline, sample
from support import ROOT

HEAVY = ("numpy", "cv2", "pywt", "onnxruntime", "paho", "boto3", "botocore", "awscrt", "ssl", "http.client")
ONNX = {"type": "onnx", "model": "M"}


def configured(*given: dict[str, Any]) -> Config:
    return load(Config, {"pipelines": {f"p{n}": {"source": source, "backend": ONNX} for n, source in enumerate(given)}})


def test_a_configuration_is_read_without_a_heavy_library() -> None:
    code = f"import sys, inferencer.config; print([name for name in {HEAVY} if name in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT / "components", check=True
    )
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(("package", "table"), [("sources", sources.KINDS), ("backends", backends.KINDS)])
def test_a_kind_has_the_name_of_its_module(package: str, table: dict[str, str]) -> None:
    kinds: Any = msgspec.inspect.type_info(union(f"inferencer.{package}", table))
    assert [kind.tag for kind in kinds.types] == list(table)


def test_each_decoder_has_a_runner() -> None:
    for module in inferencer.tasks.DECODERS.values():
        assert callable(__import__(f"inferencer.tasks.{module}", fromlist=["runner"]).runner)


def test_a_missing_library_concerns_whoever_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MqttSource, "needs", ("no_such_library",))
    others = [{"type": "camera", "camera": "c"}, {"type": "topic", "topic": "t"}]
    check(configured(*others).pipelines, "thing")
    with pytest.raises(ConfigError, match=r"pipelines\.p2\.source: needs the Python package no_such_library"):
        check(configured(*others, {"type": "mqtt"}).pipelines, "thing")


def test_a_source_is_one_module_and_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(SourceSettings, frozen=True, tag="mine", tag_field="type"):
        fast: bool = False

    module: Any = ModuleType("inferencer.sources.mine")
    module.Mine = Mine
    monkeypatch.setitem(sys.modules, module.__name__, module)
    kind: Any = union("inferencer.sources", {**sources.KINDS, "mine": "Mine"})
    assert msgspec.convert({"type": "mine", "fast": True}, kind) == Mine(fast=True)


class Counting(Runner):
    """A decoder that remembers: how many samples there were."""

    def __init__(self, bundle: models.Bundle) -> None:
        self.bundle = bundle
        self.memory: list[Sample] = []

    def infer(self, sample: Sample) -> Outcome:
        self.memory.append(sample)
        return Outcome("regression", self.bundle.ref, len(self.memory), Timer())

    def rehearse(self) -> None: ...

    def follow(self, memory: object) -> None:
        if isinstance(memory, list):
            self.memory = memory


def test_a_decoder_with_a_memory_is_one_module_and_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("inferencer.tasks.counting")
    module.runner = lambda bundle, session, pipeline: Counting(bundle)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(inferencer.tasks.DECODERS, "count", "counting")
    settings = pipeline(OnnxBackend(model="Tiny"), CameraSource(camera="c"))
    answers = []
    earlier: Runner | None = None
    for version in ("1.0.0", "2.0.0"):
        bundle = models.load(classifier(tmp_path / version, version, output={"decoder": "count"}))
        runner = inferencer.tasks.runner_of(bundle, models.open_session(bundle, threads=1), settings)
        runner.follow(earlier.memory if earlier else None)
        answers += [getattr(runner.infer(sample([1])), "results", None) for _ in range(2)]
        earlier = runner
    assert answers == [1, 2, 3, 4]


def test_a_decoder_that_there_is_not_is_told_with_those_there_are(tmp_path: Path) -> None:
    bundle = models.load(classifier(tmp_path / "b", output={"decoder": "magic"}))
    settings = pipeline(OnnxBackend(model="Tiny"), CameraSource(camera="c"))
    with pytest.raises(BundleError, match=r"no decoder 'magic', there are softmax, .*, anomaly"):
        inferencer.tasks.runner_of(bundle, models.open_session(bundle, threads=1), settings)
