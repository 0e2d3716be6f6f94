"""A pipeline whose provider is chosen: the CPU answers first, and again where the GPU fails, which is told in words."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from accelerator_support import Gpu
from edgeml import models
from edgeml.component import Context
from edgeml.errors import BackendError
from edgeml.variants import CPU
from inferencer.backends.onnx import OnnxModel
from inferencer_support import classifier, make_context, picture, sample
from support import eventually
from variants_support import CUDA, changed, models_of, runs, with_variants

Start = Callable[..., tuple[OnnxModel, Context]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with models_of(tmp_path / "work") as running:

        def started(folder: Path, providers: Any = "auto", **settings: Any) -> tuple[OnnxModel, Context]:
            context = make_context(tmp_path / "work")
            return running(folder, context, providers=providers, probe_s=0.05, **settings), context

        yield started


def told(context: Context) -> list[tuple[str, str]]:
    return [(problem.code, problem.text) for problem in context.health.report().problems]


def note(context: Context) -> str:
    return next((text for name, text in context.health.report().notes.items() if name.endswith("provider")), "")


def test_where_the_cpu_is_all_nothing_is_tried_and_little_said(tmp_path: Path, start: Start) -> None:
    model, context = start(classifier(tmp_path / "b"))
    outcome = model.infer(sample(picture(blue=200)))
    assert outcome is not None
    assert outcome.model == models.load(tmp_path / "b").ref
    assert note(context) == f"runs on {CPU}, no other is in this ONNX Runtime"
    assert not (tmp_path / "work" / "variants.json").exists()


def test_the_gpu_answers_once_it_was_tried(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gpu, folder = Gpu(), classifier(tmp_path / "b", bias=0.25)
    gpu.put_into(monkeypatch)
    model, context = start(folder)
    eventually(lambda: model.poll() and runs(model) == "fp32 CUDA")
    assert note(context).startswith(f"runs on {CUDA}, ")
    assert "x as fast as fp32 on the CPU" in note(context)
    assert told(context) == []
    assert set(gpu.asked) == {(CPU,), (CUDA, CPU)}
    caplog.set_level("INFO")
    again, context = start(folder)  # which remembers, and begins on the CPU all the same
    eventually(lambda: again.poll() and runs(again) == "fp32 CUDA")
    first, second = [record.getMessage() for record in caplog.records if "model loaded" in record.getMessage()]
    assert "until other providers are tried" in first
    assert "CUDA" in second
    assert told(context) == []


def test_one_that_does_not_start_is_passed_over_in_words(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    Gpu(starts=False).put_into(monkeypatch)
    model, context = start(classifier(tmp_path / "b", bias=0.5))
    eventually(lambda: model.poll() and "does not start" in note(context))
    assert note(context).startswith(f"runs on {CPU}, {CUDA} does not start: ")
    assert runs(model) == "fp32"
    assert told(context) == []


def test_one_that_started_before_and_does_not_is_a_problem(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu, folder = Gpu(), classifier(tmp_path / "b", bias=0.125)
    gpu.put_into(monkeypatch)
    model, _ = start(folder)
    eventually(lambda: model.poll() and runs(model) == "fp32 CUDA")
    model.close()
    gpu.works = False
    model, context = start(folder)
    eventually(lambda: told(context))
    ((code, text),) = told(context)
    assert code == "provider_failed"
    assert text.endswith("; the CPU answers")
    eventually(lambda: model.poll() and note(context) == f"runs on {CPU}")
    assert runs(model) == "fp32"


@pytest.mark.parametrize("isas", [(), ("x86_64", "aarch64", "any")], ids=["plain", "variants"])
def test_one_that_fails_at_samples_gives_way_to_the_cpu(
    isas: tuple[str, ...], tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu, folder = Gpu(), with_variants(tmp_path / "b", *isas, bias=0.0625)
    gpu.put_into(monkeypatch)
    model, context = start(folder)
    eventually(lambda: model.poll() and runs(model).endswith("CUDA"))
    gpu.works = False
    with pytest.raises(BackendError, match="failure 803"):
        model.infer(sample(picture()))
    eventually(lambda: told(context))
    ((code, text),) = told(context)
    assert (code, "failure 803" in text, text.endswith("; the CPU answers")) == ("provider_failed", True, True)
    eventually(lambda: model.poll() and note(context) == f"runs on {CPU}")
    variant = runs(model)
    assert "CUDA" not in variant
    assert "fp16" not in variant
    gpu.works = True
    changed(folder, version="1.0.1")  # with which it is asked again
    eventually(lambda: model.poll() and runs(model).endswith("CUDA"))
    assert told(context) == []


def test_an_error_of_a_sample_is_none_of_the_gpu(tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    Gpu().put_into(monkeypatch)
    model, context = start(classifier(tmp_path / "b", bias=0.375))
    eventually(lambda: model.poll() and runs(model) == "fp32 CUDA")
    with pytest.raises(BackendError):
        model.infer(sample([1.0, 2.0]))
    assert runs(model) == "fp32 CUDA"
    assert told(context) == []


def test_fp16_is_left_where_the_cpu_takes_over(tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, folder = Gpu(), with_variants(tmp_path / "b", "any", bias=0.007)
    gpu.put_into(monkeypatch)
    model, context = start(folder, (CUDA, CPU), fallback_to_cpu=True, variant="fp16")
    eventually(lambda: model.poll() and runs(model) == "fp16")
    gpu.works = False
    with pytest.raises(BackendError, match="failure 803"):
        model.infer(sample(picture()))
    eventually(lambda: note(context) == f"runs on {CPU}")
    eventually(lambda: model.poll() and runs(model) == "fp32")
    assert [code for code, _ in told(context)] == ["provider_failed"]
