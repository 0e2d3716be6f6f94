"""What stages take for evidence, without the demo around them."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import av
import cv2
import numpy as np
import pytest

from localdev.demo.stage import World
from localdev.demo.stages import boards, clip, events, live, tracks, turbine, yard


@pytest.mark.parametrize(
    ("answers", "invocations", "enough"),
    [
        (0, 0, False),
        (29, 50, False),
        (30, 50, True),
        (31, 50, True),
        (50, 49, False),
        (50, 50, True),
        (50, 51, True),
    ],
)
def test_live_inference_must_answer_three_times_a_second_from_the_endpoint(
    answers: int, invocations: int, enough: bool
) -> None:
    assert live.enough(answers, 10.0, invocations) is enough


@pytest.mark.parametrize(
    ("points", "named"),
    [
        ({}, []),
        ({"emotions": {"percent": 3, "images": 0}, "turbine": {"wind": 1}}, ["emotions: images"]),
        ({"emotions": {"percent": 3, "images": 1}, "turbine": {"wind": 1}}, []),
    ],
    ids=["none", "one empty", "all filled"],
)
def test_a_widget_without_points_is_named(points: dict[str, dict[str, int]], named: list[str]) -> None:
    assert boards.without_points(points) == named


def test_verdicts_that_come_while_the_picture_is_drawn_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Callable[[str, bytes], None]] = []
    world = SimpleNamespace(output=tmp_path, hear=lambda topic, handler: heard.append(handler))
    result = {"values": [1.0] * 6, "thresholds": [2.0] * 6, "anomalies": [False] * 6}
    plot, drawn = turbine.plot, list[int]()

    def verdict() -> None:
        heard[0]("", json.dumps({"results": result}).encode())

    def plot_slowly(verdicts: Any, picture: Path) -> None:
        verdict()
        plot(verdicts, picture)
        drawn.append(len(verdicts))

    monkeypatch.setattr(turbine, "plot", plot_slowly)
    stage = turbine.Anomaly(cast(World, world))
    stage.prepare()
    try:
        stage.begin()
        verdict()
        stage.finish()
    finally:
        stage.end()
    assert drawn == [1]
    assert (tmp_path / "turbine.png").stat().st_size


def test_visits_are_whole_and_each_must_be_seen() -> None:
    frames = [*range(5, 20), *range(30, 60), *range(62, 70), *range(130, 160), *range(190, 200)]
    there = yard.visits(frames, 8, 200)
    assert there == [(30, 69), (130, 159)]
    assert yard.missed(there, [*range(1, 30), *range(70, 140)]) == [(30, 69)]
    assert yard.missed(there, [69, 130]) == []
    assert yard.visits([], 0, 0) == []


WALK = ("appeared", "crossed middle to the right", "left")


@pytest.mark.parametrize(
    ("stories", "right"),
    [([WALK] * 2, True), ([WALK], False), ([WALK, WALK, ("appeared", "left")], False), ([], False)],
    ids=["as in the scene", "too few", "another", "none"],
)
def test_each_person_has_a_story_of_the_scene(stories: list[tuple[str, ...]], right: bool) -> None:
    assert events.right(stories) is right


def test_an_event_in_words() -> None:
    assert events.worded({"event": "crossed", "line": "middle", "direction": "left"}) == "crossed middle to the left"
    assert events.worded({"event": "entered", "zone": "desk"}) == "entered desk"
    assert events.worded({"event": "left"}) == "left"


@pytest.mark.parametrize(
    ("frames", "surely", "possibly"),
    [
        (range(95), 3, 4),  # one whole round, and somebody of the next
        (range(10, 95), 2, 4),  # the first one was there already
        (range(0, 100, 15), 0, 4),  # too seldom to know anybody
        (range(60), 1, 3),
        ([], 0, 0),
    ],
    ids=["a round", "from within", "seldom", "half a round", "none"],
)
def test_people_of_the_scene_who_can_have_been_seen(frames: list[int], surely: int, possibly: int) -> None:
    assert tracks.visits(list(frames)) == (surely, possibly)


def test_packets_are_known_again_in_another_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip, "STREAM_S", 2)
    for number in range(5):
        cv2.imwrite(str(tmp_path / f"{number}.jpg"), np.full((*yard.SIZE[::-1], 3), 50 * number, np.uint8))
    sent = b"".join(data for _, data in clip.stream(sorted(tmp_path.glob("*.jpg"))))
    with av.open(io.BytesIO(sent), "r") as source, av.open(str(tmp_path / "a.mp4"), "w") as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                copy.mux(packet)
    found = list(clip.packets((tmp_path / "a.mp4").read_bytes()))
    assert len(found) == 2 * yard.FPS
    assert set(found) <= set(clip.packets(sent))
