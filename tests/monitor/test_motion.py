"""Motion before a camera as its state says it: from CameraCapture's messages, its health, and neither for ever."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from edgeml.frames import FrameWriter
from monitor.state import MOTION_S, State
from monitor.views import CameraState
from monitor_scene import report
from monitor_support import Clock
from support import ROOT

NOW = time.time()


@pytest.fixture
def state(clock: Clock, tmp_path: Path) -> Iterator[State]:
    state = State("thing", "1.1.0", lambda: (), clock)
    state.neighbours.place(tmp_path)
    with FrameWriter("door", width=8, height=8, directory=tmp_path) as writer:
        writer.write(np.zeros((8, 8, 3), np.uint8))
        yield state


def told(state: State, moving: bool = True, camera: str = "door", **changes: Any) -> bool:
    plain = {"camera": camera, "moving": moving, "at": NOW, "since": NOW - 5, "area": 0.1}
    return state.motion(f"edgeml/camera/{camera}/motion", json.dumps(plain | changes).encode())


def shown(state: State) -> CameraState:
    (camera,) = state.snapshot().cameras
    return camera


def health(state: State, moving: float, at: float) -> None:
    said = report("edgeml.CameraCapture", gauges={"cameras.door.moving": moving}) | {"at": at}
    assert state.heard("edgeml/health/CameraCapture", json.dumps(said).encode())


def test_it_begins_and_ends(state: State) -> None:
    assert not shown(state).motion
    assert told(state)
    assert (shown(state).motion, shown(state).motion_since) == (True, NOW - 5)
    assert told(state, moving=False)
    assert (shown(state).motion, shown(state).motion_since) == (False, 0.0)


# What was heard (None: nothing), what the report says, how much younger it is, whether there is motion, since when.
BOTH = [
    (True, 0, 1, True, NOW - 5),  # the report may be older than what it arrived after
    (True, 0, 10, False, 0),  # the end was never told
    (True, 1, 10, True, NOW - 5),
    (False, 1, 1, False, 0),
    (False, 1, 10, True, 0),  # the beginning was not heard
    (None, 1, 0, True, 0),
    (None, 0, 0, False, 0),
    (None, "nan", 0, False, 0),
]


@pytest.mark.parametrize(("heard", "gauge", "younger", "motion", "since"), BOTH, ids=map(str, range(len(BOTH))))
def test_the_report_says_what_no_message_told(
    state: State, heard: bool | None, gauge: float, younger: float, motion: bool, since: float
) -> None:
    if heard is not None:
        told(state, heard)
    health(state, gauge, NOW + younger)
    assert (shown(state).motion, shown(state).motion_since) == (motion, since)


REFUSED: list[dict[str, Any]] = [
    {"moving": "perhaps"},
    {"since": "nan"},
    {"at": "inf"},
    {"camera": [1]},
    {"camera": "x" * 20_000},
]


@pytest.mark.parametrize("changes", REFUSED, ids=[*map(str, range(len(REFUSED)))])
def test_what_tells_no_motion_is_refused(state: State, changes: dict[str, Any]) -> None:
    assert not told(state, **changes)
    assert not shown(state).motion


def test_cameras_that_there_are_not_take_nobodys_place(state: State) -> None:
    assert not any(told(state, camera=f"c{number}") for number in range(200))
    assert told(state)
    assert shown(state).motion


def test_no_camera_that_is_away_has_motion(state: State, tmp_path: Path, clock: Clock) -> None:
    told(state)
    clock.now += MOTION_S + 1
    assert not shown(state).motion
    told(state)
    for ring in tmp_path.iterdir():
        ring.unlink()
    assert not state.snapshot().cameras


def test_the_recipe_lets_all_topics_be_heard(state: State) -> None:
    recipe = yaml.safe_load((ROOT / "recipes" / "edgeml.Monitor.yaml").read_text(encoding="utf-8"))
    rules = recipe["ComponentConfiguration"]["DefaultConfiguration"]["accessControl"]["aws.greengrass.ipc.pubsub"]
    heard = [rule["resources"] for rule in rules.values() if "aws.greengrass#SubscribeToTopic" in rule["operations"]]
    assert {topic.replace("+", "*") for topic in state.topics()} <= {each for resources in heard for each in resources}
