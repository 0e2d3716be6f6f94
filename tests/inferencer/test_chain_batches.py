"""Crops answered together, and one session for the pipelines of a model."""

import gc
from pathlib import Path
from typing import Any

import pytest
from onnx import TensorProto, helper

from chains_support import FIRST_ONLY, FREE
from edgeml import models
from inferencer import sessions
from inferencer.backends.onnx import OnnxBackend
from inferencer.sources.detections import DetectionsSource
from inferencer.tasks import runner_of
from inferencer_support import classifier, describe, picture, pipeline, sample, save


def batched(folder: Path, nodes: Any, size: Any = "n", side: int = 8) -> Path:
    classifier(folder)
    axes = [helper.make_tensor("axes", TensorProto.INT64, [2], [2, 3])]
    axes += [helper.make_tensor("batch", TensorProto.INT64, [1], [0])] if nodes is FIRST_ONLY else []
    given: Any = ("input", TensorProto.FLOAT, [size, 3, side, side])
    save(folder / "model.onnx", nodes, axes, given, ("scores", [size, 3]))
    declared: Any = {"name": "input", "layout": "NCHW", "size": [side, side], "color": "bgr"}
    output = {"decoder": "softmax", "parameters": {"apply_softmax": True}}
    return describe(
        folder, "1.0.0",
        {"task": "classification", "input": declared, "output": output, "labels": ["blue", "green", "red"]},
    )  # fmt: skip


class Counting:
    """A session that counts its runs, and may seem to be of another provider."""

    def __init__(self, session: Any, *providers: str) -> None:
        self._session, self.sizes = session, list[int]()
        if providers:
            self.get_providers = lambda: list(providers)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, names: Any, given: Any) -> Any:
        self.sizes.append(len(given["input"]))
        return self._session.run(names, given)


@pytest.mark.parametrize(
    ("nodes", "size", "sizes"),
    [(FREE, "n", [5]), (FREE, 1, [1] * 5), (FIRST_ONLY, "n", [1] * 5)],
    ids=["free", "one", "only its shapes are"],
)
def test_crops_are_answered_together_where_the_model_can(tmp_path: Path, nodes: Any, size: Any, sizes: Any) -> None:
    loaded = models.load(batched(tmp_path / "b", nodes, size))
    session: Any = Counting(models.open_session(loaded))
    runner = runner_of(loaded, session, pipeline(OnnxBackend(model="M"), DetectionsSource(pipeline="faces")))
    session.sizes.clear()
    torn = sample(picture(red=200), valid=lambda: False)
    colours: list[Any] = [{"blue": 200}, {"green": 100}, {"red": 50}, {"blue": 10, "red": 20}, {"green": 255}]
    asked = [sample(picture(**colour)) for colour in colours]
    together = runner.infer_all([*asked[:3], torn, *asked[3:]])
    assert session.sizes == sizes
    assert together.pop(3) is None
    for one, each in zip(asked, together, strict=True):
        alone = runner.infer(one)
        assert alone is not None
        assert each is not None
        assert [found.label for found in each.results] == [found.label for found in alone.results]
        assert [found.score for found in each.results] == pytest.approx([found.score for found in alone.results])
        assert each.timer.inference > 0


@pytest.mark.parametrize(
    ("side", "providers", "together"),
    [
        (8, (), 16),
        (40, (), 3),
        (73, (), 1),
        (74, (), 1),
        (200, (), 1),
        (200, ("CUDAExecutionProvider",), 16),
        (800, ("CUDAExecutionProvider",), 4),
        (1400, ("CUDAExecutionProvider",), 1),
        (8, ("TensorrtExecutionProvider", "CUDAExecutionProvider"), 1),
        (8, ("MIGraphXExecutionProvider",), 1),
    ],
)
def test_a_batch_is_one_that_caches_or_memory_hold_and_of_one_where_each_size_is_compiled(
    tmp_path: Path, side: int, providers: tuple[str, ...], together: int
) -> None:
    loaded = models.load(batched(tmp_path / "b", FREE, side=side))
    session: Any = Counting(models.open_session(loaded), *providers)
    configured = pipeline(OnnxBackend(model="M"), DetectionsSource(pipeline="faces"))
    assert runner_of(loaded, session, configured).together == together
    assert (2 in session.sizes) == (together > 1)  # where it would be no gain it is not even tried


def test_pipelines_with_the_same_model_share_a_session(tmp_path: Path) -> None:
    one, same = (models.load(classifier(tmp_path / name)) for name in ("a", "b"))
    other = models.load(classifier(tmp_path / "c", bias=1.0))
    how: Any = {"providers": ("CPUExecutionProvider",), "threads": 1, "optimization": "all"}
    gc.collect()  # sessions of earlier tests
    before = sessions.count()
    first = sessions.session_of(one, **how)
    assert sessions.session_of(same, **how) is first
    assert sessions.session_of(other, **how) is not first
    assert sessions.session_of(one, **{**how, "threads": 2}) is not first
    assert sessions.count() == before + 1  # what nobody has is closed
    del first
    assert sessions.count() == before
