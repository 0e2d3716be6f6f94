"""How many threads a model gets where cores are shared."""

from pathlib import Path
from typing import Any

import pytest

from edgeml import config
from inferencer.assembly import Assembly, Running
from inferencer.backends.onnx import threads
from inferencer.component import Inferencer
from inferencer.config import Config
from inferencer_support import make_context


@pytest.mark.parametrize(
    ("wanted", "sharing", "cores", "expected"),
    [("auto", 1, 4, 4), ("auto", 3, 8, 2), ("auto", 9, 4, 1), ("auto", 0, 2, 2), (3, 9, 1, 3), (0, 1, 1, 0)],
)
def test_threads_share_the_cores(wanted: Any, sharing: int, cores: int, expected: int) -> None:
    assert threads(wanted, sharing, cores) == expected
    assert threads("auto", 1) >= 1


def test_pipelines_that_run_models_are_those_that_share(tmp_path: Path) -> None:
    configured = {"source": {"type": "request", "allowed_dirs": [str(tmp_path)]}}
    onnx = {**configured, "backend": {"type": "onnx", "model": "Tiny", "threads": "auto"}}
    other = {**configured, "backend": {"type": "http", "url": "http://127.0.0.1:1/", "task": "regression"}}
    seen: list[int] = []

    class Noticing(Assembly):
        def __init__(self, *given: Any) -> None:
            seen.append(given[-1])
            super().__init__(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("inferencer.component.Assembly", Noticing)
        inferencer = Inferencer(make_context(tmp_path / "work"))
        pipelines = {"a": onnx, "b": onnx, "c": other, "d": {**other, "fallback": onnx["backend"]}}
        inferencer.start(config.load(Config, {"pipelines": pipelines}))
        inferencer.stop()
    assert seen == [3]


def test_threads_are_shared_anew_with_each_pipeline_that_comes_or_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)))
    source = {"type": "request", "allowed_dirs": [str(tmp_path)]}
    auto = {"source": source, "backend": {"type": "onnx", "model": "Tiny", "threads": "auto"}}
    fixed = {"source": source, "backend": {"type": "onnx", "model": "Tiny"}}
    begun: list[tuple[str, int]] = []

    class Noticing(Assembly):
        def start(self, name: str, pipeline: Any) -> Running:
            begun.append((name, pipeline.backend.threads))
            return super().start(name, pipeline)

    monkeypatch.setattr("inferencer.component.Assembly", Noticing)
    inferencer = Inferencer(make_context(tmp_path / "work"))
    steps: list[dict[str, Any]] = [{"a": auto, "b": fixed}, {"a": auto, "b": fixed, "c": fixed, "d": fixed}]
    inferencer.start(config.load(Config, {"pipelines": steps[0]}))
    try:
        for step in (steps[1], {**steps[1], "e": fixed}):  # two threads become one, and stay one
            inferencer.reconfigure(config.load(Config, {"pipelines": step}))
    finally:
        inferencer.stop()
    assert begun == [("a", "auto"), ("b", 1), ("a", "auto"), ("c", 1), ("d", 1), ("e", 1)]
