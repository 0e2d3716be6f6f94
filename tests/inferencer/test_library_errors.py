"""Whatever a library raises where it is called is an error of ours, and of one sample."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import pytest

from edgeml import http
from edgeml.component import Context
from edgeml.errors import BackendError
from inferencer.backends import onnx as onnx_backend
from inferencer.backends.http import HttpBackend
from inferencer.backends.onnx import OnnxBackend
from inferencer.fallback import WithFallback
from inferencer.sources.camera import CameraSource
from inferencer.sources.topic import TopicSource
from inferencer.tasks import softmax
from inferencer_faults_support import ERRORS, Parts, opened
from inferencer_support import classifier, endpoint, picture, sample
from inferencer_support import pipeline as pipeline_of
from support import eventually


@pytest.mark.parametrize("kind", ERRORS)
def test_what_onnxruntime_opencv_and_decoders_raise_is_a_backend_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    runner = opened(classifier(tmp_path / "b"))

    def fail(*arguments: Any, **options: Any) -> Any:
        raise ERRORS[kind]()

    for owner, name in ((onnxruntime.InferenceSession, "run"), (cv2, "resize"), (softmax, "check")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail)
            with pytest.raises(BackendError):
                runner.infer(sample(picture()))
    assert runner.infer(sample(picture())) is not None


@pytest.mark.parametrize("kind", ERRORS)
def test_the_fallback_answers_whatever_the_first_raises(tmp_path: Path, context: Context, kind: str) -> None:
    good = Parts("", ValueError)
    first = Parts("model", ERRORS[kind])
    model = WithFallback("p", first, good)
    assert model.infer(sample([1])) is not None
    with contextlib.suppress(Exception):
        model.close()
    assert first.closed == good.closed == ["part"]


@pytest.mark.parametrize("kind", ERRORS)
def test_a_remote_models_libraries_fail_in_words(
    tmp_path: Path, context: Context, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    from inferencer.backends.http import HttpModel

    with endpoint() as server:
        backend = HttpBackend(url=server.url, task="regression", attempts=1)
        model = HttpModel(backend, pipeline_of(backend, TopicSource(topic="t")), context, "p")

        def fail(*arguments: Any, **options: Any) -> Any:
            raise ERRORS[kind]()

        for owner, name in ((model, "encode"), (http.Client, "request"), (model, "decode")):
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, fail)
                with pytest.raises(BackendError):
                    model.infer(sample([1]))
        model.close()


def test_a_loader_that_trips_over_a_bundle_goes_on(
    tmp_path: Path, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever onnxruntime raises while a version is opened: the one that runs goes on, the next one is taken."""
    monkeypatch.setattr(onnx_backend, "POLL_S", 0.02)
    settings = OnnxBackend(model="Tiny", path=str(tmp_path / "b"))
    model = onnx_backend.OnnxModel(settings, pipeline_of(settings, CameraSource(camera="c")), context, "p")
    try:
        with monkeypatch.context() as patch:
            for number, error in enumerate(ERRORS.values()):

                def fail(*arguments: Any, error: Callable[[], BaseException] = error, **options: Any) -> Any:
                    raise error()

                patch.setattr(onnxruntime, "InferenceSession", fail)
                classifier(tmp_path / "b", f"1.0.{number}")
                eventually(lambda: context.health.counter("p.models_refused") > number, 5, "a refusal")  # noqa: B023
        classifier(tmp_path / "b", "2.0.0")
        eventually(model.poll, 5, "the model")
    finally:
        model.close()


def test_an_image_that_is_none_is_one_inputs_fault(tmp_path: Path) -> None:
    runner = opened(classifier(tmp_path / "b"))
    for image in (np.zeros((0, 0, 3), np.uint8), np.zeros((4, 4, 7), np.uint8), np.zeros((4, 4, 3), np.float64)):
        with pytest.raises(BackendError):
            runner.infer(sample(image))
