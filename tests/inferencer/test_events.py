"""Events of a pipeline: configured, sent to both topics, and told to their end over restarts."""

import itertools
from typing import Any

import pytest

from camera_capture.asked import check_key
from edgeml.component import Context
from edgeml.config import load
from edgeml.errors import ConfigError
from edgeml.messages import (
    Detection,
)
from events_support import YARD, Outbox, box, frame, outcome_of, placed, result_of
from inferencer.assembly import check
from inferencer.clips import Clip
from inferencer.config import Config
from inferencer.parts import Sink
from inferencer.sinks.events import Events
from inferencer.sinks.iot_core import IotCore
from inferencer.tracking.tracker import Tracker

CAMERA = {"type": "camera", "camera": "c"}
ONNX = {"type": "onnx", "model": "M"}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "zones without tracking": ({"events": {"zones": {"z": {"points": [[0, 0], [1, 0], [1, 1]]}}}}, "p.events.zones"),
    "lines without tracking": ({"events": {"lines": {"l": {"points": [[0, 0], [1, 0]]}}}}, "p.events.lines"),
    "events without tracking": ({"iot_core": {"when": "events"}}, "p.iot_core.when"),
    "events turned off": (
        {"tracking": {}, "iot_core": {"when": "events"}, "events": {"enabled": False}},
        "p.iot_core.when: expected events.enabled",
    ),
    "a clip of whom privacy hides": (
        {"tracking": {}, "privacy": {}, "events": {"clip": {}}},
        "p.events.clip: a clip would show what privacy hides",
    ),
    "a clip without tracking": ({"events": {"clip": {}}}, "p.events.clip: needs objects that are followed"),
    "a clip of nothing": ({"tracking": {}, "events": {"clip": {"when": []}}}, "p.events.clip.when"),
    "two corners": ({"tracking": {}, "events": {"zones": {"z": {"points": [[0, 0], [1, 1]]}}}}, "zones.z.points"),
    "outside": ({"tracking": {}, "events": {"zones": {"z": {"points": [[0, 0], [2, 1], [0, 1]]}}}}, "zones.z.points"),
    "flat": ({"tracking": {}, "events": {"zones": {"z": {"points": [[0, 0], [0.5, 0.5], [1, 1]]}}}}, "lie on one line"),
    "a point": ({"tracking": {}, "events": {"lines": {"l": {"points": [[0.5, 0.5], [0.5, 0.5]]}}}}, "in one place"),
    "three ends": (
        {"tracking": {}, "events": {"lines": {"l": {"points": [[0, 0], [0, 1], [1, 1]]}}}},
        "lines.l.points",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_can_never_happen_is_refused(fault: str) -> None:
    fields, text = REFUSED[fault]
    with pytest.raises(ConfigError) as caught:
        check(load(Config, {"pipelines": {"p": {"source": CAMERA, "backend": ONNX, **fields}}}).pipelines, "thing")
    assert text in str(caught.value)


class Watched:
    """The sinks of a pipeline in which events go to IoT Core, and its tracks."""

    def __init__(self, context: Context, **events: Any) -> None:
        self.outbox, self.tracker = Outbox(), Tracker(itertools.count(100).__next__)
        iot_core = IotCore(when="events")
        where = placed(context, self.outbox, iot_core=iot_core)
        assert iot_core.open(where) is None
        sink = Events(**events).open(where)
        assert sink is not None
        self.sink: Sink = sink

    def see(self, at: float, *found: Detection) -> None:
        step = self.tracker.update(found, 0.5, at, 1e9 + at)
        self.sink.put(frame(at), outcome_of(list(found), step=step), result_of([]))


def published(context: Context) -> list[str]:
    ipc: Any = context.ipc
    return [event["event"] for event in ipc.on("edgeml/event/p")]


def test_events_go_to_the_local_topic_and_to_iot_core(context: Context) -> None:
    watched = Watched(context, zones={"yard": YARD})
    for number in range(5):
        watched.see(number / 10, box(0.5, 0.8))
    assert published(context) == ["appeared", "entered"]
    assert [event["event"] for event in watched.outbox.sent] == ["appeared", "entered"]
    first = watched.outbox.sent[0]
    assert first["source"]["camera"] == "c"
    assert (first["label"], first["device"], first["track"]) == ("person", "bench", 100)


def test_the_camera_is_asked_for_clips_whose_keys_events_name(context: Context) -> None:
    watched = Watched(context, clip=Clip(when=("entered",), before_s=3, after_s=4), zones={"yard": YARD})
    for number in range(5):
        watched.see(number / 10, box(0.5, 0.8))
    ipc: Any = context.ipc
    (command,) = ipc.on("edgeml/camera/c/command")
    appeared, entered = watched.outbox.sent
    assert "clip" not in appeared
    assert command == {
        "command": "clip", "before_s": 3, "after_s": 4, "key": entered["clip"], "request_id": entered["id"]
    }  # fmt: skip
    assert entered["clip"] == f"clips/bench/2001/09/09/014640000000-p-{entered['id']}.mp4"
    check_key(entered["clip"], "clips", "bench", ".mp4")  # a camera takes it


def test_a_crowd_is_not_a_crowd_of_clips(context: Context) -> None:
    watched = Watched(context, clip=Clip())
    for number in range(5):
        watched.see(number / 10, *[box(x / 20, 0.8) for x in range(1, 20, 2)])
    for number in range(5):
        watched.see(100 + number / 10, box(0.5, 0.8))
    named = [event.get("clip") for event in watched.outbox.sent if event["event"] == "appeared"]
    assert [bool(clip) for clip in named] == [True] * 6 + [False] * 4 + [True]
    assert context.health.counter("pipelines.p.clips_left_out") == 4


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_what_was_open_is_interrupted(context: Context, how: str) -> None:
    watched = Watched(context, zones={"yard": YARD})
    for number in range(5):
        watched.see(number / 10, box(0.5, 0.8), box(0.9, 0.8))
    begun = {event["id"] for event in watched.outbox.sent}
    assert len(begun) == 3
    told_before = len(watched.outbox.sent)
    if how == "stopped":
        watched.sink.close()
    after = Watched(context)
    interrupted = watched.outbox.sent[told_before:] if how == "stopped" else after.outbox.sent
    assert {(event["event"], event["begun"]) for event in interrupted} == {("interrupted", one) for one in begun}
    assert published(context).count("interrupted") == 3
    assert Watched(context).outbox.sent == []  # and only once


def test_what_ended_is_not_interrupted(context: Context) -> None:
    watched = Watched(context)
    for number in range(5):
        watched.see(number / 10, box(0.5, 0.8))
    for number in range(6):
        watched.see(1 + number / 2)
    assert published(context) == ["appeared", "left"] or published(context)[-1] == "left"
    assert Watched(context).outbox.sent == []


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[{}]", b"[[[[", b"\xff"], ids=["empty", "object", "no event", "cut", "bytes"]
)
def test_a_damaged_file_of_open_events_is_passed_over(context: Context, content: bytes) -> None:
    (context.work / "pipelines.p.events").write_bytes(content)
    assert Watched(context).outbox.sent == []


def test_answers_that_overtake_each_other_tell_nothing_twice(context: Context) -> None:
    watched = Watched(context, min_seen=1)
    steps = [(at, watched.tracker.update([box(0.5, 0.8)], 0.5, at, 1e9 + at)) for at in (0.1, 0.2, 0.3)]
    for at, step in (steps[0], steps[2], steps[1]):
        watched.sink.put(frame(at), outcome_of([box(0.5, 0.8)], step=step), result_of([]))
    assert published(context) == ["appeared"]
