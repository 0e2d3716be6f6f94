"""Execution providers that are not there, do not start, or fail later: a problem in words, and the CPU if it may."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from edgeml.component import Context
from edgeml.errors import BackendError
from inferencer.backends.onnx import OnnxBackend, OnnxModel
from inferencer.sources.camera import CameraSource
from inferencer_support import classifier, make_context, picture, pipeline, sample
from support import eventually

CUDA, AZURE, CPU = "CUDAExecutionProvider", "AzureExecutionProvider", "CPUExecutionProvider"
Start = Callable[..., tuple[OnnxModel, Context]]
THREADS = 3  # as in no other test: pipelines that run a model alike share a session, those of other tests, too
ABSENT = f"{CUDA} is not in this ONNX Runtime, present are "


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    made: list[OnnxModel] = []

    def started(*providers: str, fallback_to_cpu: bool = True) -> tuple[OnnxModel, Context]:
        folder = tmp_path / "b" if (tmp_path / "b").exists() else classifier(tmp_path / "b")
        backend = OnnxBackend(
            "Tiny", path=str(folder), providers=providers, fallback_to_cpu=fallback_to_cpu, threads=THREADS
        )
        context = make_context(tmp_path / "work")
        made.append(OnnxModel(backend, pipeline(backend, CameraSource(camera="c")), context, "p"))
        return made[-1], context

    yield started
    for model in made:
        model.close()


def answers(model: OnnxModel) -> bool:
    eventually(model.poll)
    return model.infer(sample(picture(blue=200))) is not None


def told(context: Context) -> list[tuple[str, str, str]]:
    return [(problem.code, problem.subject, problem.text) for problem in context.health.report().problems]


def test_one_that_is_not_there_is_a_problem_and_the_cpu_answers(start: Start) -> None:
    model, context = start(CUDA, CPU)
    assert answers(model)
    ((code, subject, text),) = told(context)
    assert (code, subject) == ("provider_failed", "p.provider")
    assert text.startswith(ABSENT)
    assert text.endswith("; the CPU answers")
    assert context.health.report().notes == {"p.provider": f"runs on {CPU}"}


def test_without_leave_nothing_answers(start: Start) -> None:
    model, context = start(CUDA, CPU, fallback_to_cpu=False)
    eventually(lambda: told(context))
    ((code, _, text),) = told(context)
    assert (code, text.startswith(ABSENT), "the CPU answers" in text) == ("provider_failed", True, False)
    with pytest.raises(BackendError, match="not loaded"):
        model.infer(sample(picture()))


def lies_in(folder: Path, library: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ONNX Runtime is, and the library of a provider."""
    monkeypatch.setattr(onnxruntime, "__file__", str(folder / "__init__.py"))
    if library is not None:
        (folder / "capi").mkdir()
        (folder / "capi" / "libonnxruntime_providers_azure.so").write_bytes(library)


@pytest.mark.parametrize(
    ("library", "reason"),
    [
        (None, "the log has what ONNX Runtime says of it"),
        (b"no library", "libonnxruntime_providers_azure.so: file too"),
    ],
    ids=["driver", "library"],
)
def test_one_that_does_not_start_says_why(
    library: bytes | None, reason: str, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime then goes on without it, and says so in its log alone, as seen with its build for CUDA."""
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda session: [CPU])
    lies_in(tmp_path, library, monkeypatch)
    model, context = start(AZURE, CPU)
    assert answers(model)
    ((code, _, text),) = told(context)
    assert code == "provider_failed"
    assert text.startswith(f"{AZURE} does not start: ")
    assert reason in text


@pytest.mark.parametrize("may", [True, False], ids=["fallback", "none"])
def test_one_that_fails_later_is_found_out_by_its_errors(
    may: bool, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, context = start(AZURE, CPU, fallback_to_cpu=may)
    assert answers(model)
    eventually(lambda: context.health.report().notes == {"p.provider": f"runs on {AZURE}"}, 5, "no more than that")
    assert told(context) == []
    run = onnxruntime.InferenceSession.run

    def broken(self: Any, *given: Any) -> Any:
        if AZURE in self.get_providers():
            raise RuntimeError("CUDA failure 803: system has unsupported display driver / cuda driver combination")
        return run(self, *given)

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", broken)
    with pytest.raises(BackendError, match="failure 803"):
        model.infer(sample(picture()))
    eventually(lambda: told(context))
    ((code, subject, text),) = told(context)
    assert (code, subject) == ("provider_failed", "p.provider")
    assert "failure 803" in text
    if may:
        eventually(lambda: context.health.report().notes == {"p.provider": f"runs on {CPU}"})
        eventually(lambda: model.poll() and succeeds(model))


def succeeds(model: OnnxModel) -> bool:
    try:
        return answers(model)
    except BackendError:
        return False


def test_an_error_of_a_sample_is_none_of_its_provider(start: Start) -> None:
    model, context = start(AZURE, CPU)
    assert answers(model)
    with pytest.raises(BackendError):
        model.infer(sample([1.0, 2.0]))
    assert answers(model)
    assert told(context) == []


@pytest.mark.parametrize("library", [None, b"no library"], ids=["driver", "library"])
@pytest.mark.parametrize("may", [True, False], ids=["fallback", "none"])
def test_one_that_fails_at_its_start_is_told_from_a_bad_model(
    may: bool, library: bytes | None, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As TensorRT's does, whose library names another one that is missing."""
    lies_in(tmp_path, library, monkeypatch)
    classifier(tmp_path / "b", bias=0.5)  # of which no other test has a session that could be shared
    opened = onnxruntime.InferenceSession.__init__

    def broken(self: Any, *given: Any, **named: Any) -> None:
        if AZURE in named["providers"]:
            raise RuntimeError("Please install TensorRT libraries")
        opened(self, *given, **named)

    monkeypatch.setattr(onnxruntime.InferenceSession, "__init__", broken)
    _, context = start(AZURE, CPU, fallback_to_cpu=may)
    eventually(lambda: told(context))
    ((code, _, text),) = told(context)
    assert (code, "the CPU answers" in text) == ("provider_failed", may)
    assert ("install TensorRT" if library is None else "providers_azure.so: file too short") in text


@pytest.mark.parametrize("may", [True, False], ids=["fallback", "none"])
def test_a_bad_model_is_no_fault_of_its_provider(may: bool, start: Start, tmp_path: Path) -> None:
    classifier(tmp_path / "b")
    (tmp_path / "b" / "model.onnx").write_bytes(b"no model")
    _, context = start(AZURE, CPU, fallback_to_cpu=may)
    eventually(lambda: told(context))
    ((code, subject, _),) = told(context)
    assert (code, subject) == ("model_refused", "p.model")
