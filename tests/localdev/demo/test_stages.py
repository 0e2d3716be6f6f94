"""What stages take for evidence, without the demo around them."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from localdev.demo.stage import World
from localdev.demo.stages.boards import Dashboards
from localdev.demo.stages.live import LiveInference
from localdev.demo.stages.turbine import Anomaly


def world(**parts: Any) -> World:
    return cast(World, SimpleNamespace(**parts))


@pytest.mark.parametrize(("answers", "ok"), [(0, False), (5, False), (39, False), (41, True), (50, True)])
def test_live_inference_must_answer_about_five_times_a_second_of_the_watched_time(answers: int, ok: bool) -> None:
    stage = LiveInference(world(hear=lambda topic, handler: None))
    stage._invocations = 50
    stage.begin()
    stage._begun -= 10  # seconds ago
    for _ in range(answers):
        stage._result("", json.dumps({"results": {"value": 4.2}, "latency_ms": {"inference": 20}}).encode())
    stage.finish()
    assert stage.evidence().ok is ok


def test_answers_that_do_not_come_from_the_endpoint_are_no_evidence() -> None:
    stage = LiveInference(world(hear=lambda topic, handler: None))
    stage._invocations = 49
    stage.begin()
    stage._begun -= 10
    for _ in range(50):
        stage._result("", json.dumps({"results": {"value": 4.2}, "latency_ms": {"inference": 20}}).encode())
    stage.finish()
    assert not stage.evidence().ok


def test_a_widget_without_points_is_named() -> None:
    stage = Dashboards(world())
    stage.begin()
    stage._points = {"emotions": {"percent": 3, "images": 0}, "turbine": {"wind": 1}}
    evidence = stage.evidence()
    assert not evidence.ok
    assert evidence.missing.endswith("not in emotions: images")
    stage._points["emotions"]["images"] = 1
    assert stage.evidence().ok


class Growing(list[Any]):
    """A list to which another thread appends while it is read."""

    def __iter__(self) -> Iterator[Any]:
        self.append(self[-1])
        return super().__iter__()


def test_verdicts_that_come_while_the_picture_is_drawn_are_left_out(tmp_path: Path) -> None:
    stage = Anomaly(world(output=tmp_path))
    result = {"values": [1.0] * 6, "thresholds": [2.0] * 6, "anomalies": [False] * 6}
    stage._verdicts = Growing([(1.0, False, result), (2.0, True, result)])
    stage.finish()
    assert (tmp_path / "turbine.png").stat().st_size
