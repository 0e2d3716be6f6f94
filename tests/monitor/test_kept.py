"""What is kept of results, events, models and devices, and of what strangers say in their place."""

import json
from pathlib import Path
from typing import Any

import pytest

from edgeml.errors import IpcError, NotFoundError
from ipc_support import FakeIpc
from monitor import kept
from monitor import state as bounds
from monitor.state import State
from monitor_support import Clock

LATENCY = {"queue": 1, "preprocess": 1, "inference": 1, "postprocess": 1}


@pytest.fixture
def state(clock: Clock, tmp_path: Path) -> State:
    state = State("thing", "1.1.0", lambda: (), clock)
    state.neighbours.place(tmp_path)
    return state


def result(**changes: Any) -> bytes:
    plain: dict[str, Any] = {"pipeline": "p", "model": {"name": "Faces", "version": "1.0.0"}, "task": "detection"}
    plain |= {"source": {"camera": "door", "frame_id": 1}, "results": [], "latency_ms": LATENCY, "device": "d"}
    return json.dumps(plain | changes).encode()


EVENT = {"event": "appeared", "id": "1", "pipeline": "p", "device": "d", "at": 1.0}
STATUS = {"model": "Faces", "version": "1.2.0", "status": "accepted", "component": "edgeml.Inferencer"}
RECORD = {"port": "mcu", "at": 1.0, "format": "raw", "record": "hello"}
GOOD = {
    "edgeml/inference/p": result(),
    "edgeml/event/p": json.dumps(EVENT).encode(),
    "edgeml/model/Faces/status": json.dumps(STATUS).encode(),
    "edgeml/serial/mcu/record": json.dumps(RECORD).encode(),
}


def taken(state: State, topic: str, payload: bytes) -> bool:
    kind = topic.split("/")[1]
    (take,) = [take for pattern, take in state.topics().items() if pattern.split("/")[1] == kind]
    return take(topic, payload)


def test_each_is_shown_by_its_name(state: State) -> None:
    for topic, payload in GOOD.items():
        assert taken(state, topic, payload), topic
    shown = state.snapshot()
    assert [(one.name, one.model, one.model_version, one.camera) for one in shown.pipelines] == [
        ("p", "Faces", "1.0.0", "door")
    ]
    assert [(one.name, one.version, one.status) for one in shown.models] == [("Faces", "1.2.0", "accepted")]
    assert [(one.port, one.format, one.records) for one in shown.serial] == [("mcu", "raw", 1)]
    assert [json.loads(message)["type"] for message in state.followed("p")] == ["result", "event"]
    assert json.loads(state.records()[0])["record"] == "hello"


@pytest.mark.parametrize(
    ("more", "step", "progress"),
    [
        ({"step": "download", "progress": 0.42}, "download", 0.42),
        ({"step": "probe"}, "probe", None),
        ({"step": "x" * 1000, "progress": 7}, "x" * kept.MAX_NAME, 1.0),
    ],
    ids=["part of a download", "a step", "nonsense"],
)
def test_an_update_is_shown_as_it_gets_on(
    state: State, more: dict[str, Any], step: str, progress: float | None
) -> None:
    updating = STATUS | {"version": "2.0.0", "status": "updating", "component": "edgeml.ModelUpdater"} | more
    assert state.model("edgeml/model/Faces/status", json.dumps(updating).encode())
    (shown,) = state.snapshot().models
    assert (shown.version, shown.status, shown.step, shown.progress) == ("2.0.0", "updating", step, progress)


WRONG = {
    "nothing": b"",
    "no JSON": b"\xff",
    "another shape": b"{}",
    "no object": b"[]",
    "deep": b'{"results":' + b"[" * 10_000,
    "too large": b'{"results": "' + b"x" * bounds.MAX_MESSAGE_BYTES + b'"}',
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("topic", GOOD)
def test_what_is_none_is_refused(state: State, topic: str, case: str) -> None:
    assert not taken(state, topic, WRONG[case])
    shown = state.snapshot()
    assert not (shown.pipelines or shown.models or shown.serial)


@pytest.mark.parametrize("topic", GOOD)
def test_a_flood_of_names_does_not_grow_it(state: State, topic: str) -> None:
    name = topic.split("/")[2]
    topics = [topic.replace(name, f"n{number}") for number in range(1000)]
    assert sum(taken(state, each, GOOD[topic]) for each in topics) == kept.MAX_NAMES
    assert not taken(state, topic.replace(name, "x" * (kept.MAX_NAME + 1)), GOOD[topic])
    assert taken(state, topics[0], GOOD[topic])  # who was there first is still heard


def test_a_flood_of_messages_is_bounded_in_number_and_bytes(state: State) -> None:
    for number in range(500):
        state.result("edgeml/inference/p", result(request_id=str(number)))
        state.result("edgeml/inference/q", result(request_id="x" * 9000))
    assert len(state.followed("p")) == bounds.RESULTS
    assert json.loads(state.followed("p")[-1])["result"]["request_id"] == "499"
    assert sum(map(len, state.followed("q"))) <= kept.MAX_BYTES


def test_who_says_nothing_any_more_is_forgotten_but_no_model(state: State, clock: Clock) -> None:
    for topic, payload in GOOD.items():
        taken(state, topic, payload)
    clock.now += kept.FORGOTTEN_S + 1
    shown = state.snapshot()
    assert not (shown.pipelines or shown.serial or state.followed("p"))
    assert shown.models


SUMMARIES = [
    ([], "nothing"),
    ([{"label": "face", "score": 0.914}, {"label": "<b>", "score": 0.5}], "face 91 %, <b> 50 %"),
    ([{"label": "a", "score": 1}] * 5, "a 100 %, a 100 %, a 100 % and 2 more"),
    ({"anomalies": [False, True], "values": [1, 2], "thresholds": [1, 1]}, "anomaly: feature 2 2 (threshold 1)"),
    (
        {"anomalies": [True, True], "values": [1.23456, 3], "thresholds": [1], "features": ["<b>", "voltage"]},
        "anomaly: <b> 1.235 (threshold 1), voltage 3",
    ),
    ({"anomalies": [True], "values": "x", "thresholds": [10**400], "features": [7]}, "anomaly: feature 1"),
    ({"value": 10**400, "measured": 1}, ""),
    ({"value": 1, "measured": 10**400}, "1"),
    ({"anomalies": [False], "values": [1], "thresholds": [1]}, "as usual"),
    ({"value": 2.5, "measured": 3}, "2.5, measured 3"),
    ([1, None, {"score": "much"}, {"score": 1e400}], "?, ?"),
    ({"value": "much"}, ""),
    (7, ""),
]


@pytest.mark.parametrize(("found", "words"), SUMMARIES)
def test_what_was_found_last_in_words(state: State, found: Any, words: str) -> None:
    assert state.result("edgeml/inference/p", result(results=found).replace(b"Infinity", b"1e308"))
    assert state.snapshot().pipelines[0].last == words


class Neighbourly(FakeIpc):
    """Answers with configurations, or with what the core refuses with."""

    def __init__(self, **found: dict[str, Any] | Exception) -> None:
        super().__init__()
        self.found = found

    def configuration(self, component: str = "") -> dict[str, Any]:
        self.crossed("configuration", component)
        answer = self.found.get(component.removeprefix("edgeml."), NotFoundError(component))
        if isinstance(answer, Exception):
            raise answer
        return answer


PIPELINE = {
    "source": {"type": "camera", "camera": "door"},
    "backend": {"type": "onnx", "model": "Faces"},
    "score_threshold": "0.4",
    "events": {"zones": {"gate": {"points": [[0, 0], ["1", 0], [1, 1]]}}},
    "privacy": {"labels": ["face"]},
}


def test_configurations_of_others_say_what_there_is(state: State) -> None:
    ipc = Neighbourly(CameraCapture={"cameras": {"door": {"type": "test"}}}, Inferencer={"pipelines": {"p": PIPELINE}})
    state.neighbours.ask(ipc)
    shown = state.snapshot()
    assert [(one.name, one.live, one.private, one.commands) for one in shown.cameras] == [
        ("door", False, True, ["start"])
    ]
    (pipeline,) = shown.pipelines
    assert (pipeline.camera, pipeline.model, pipeline.threshold) == ("door", "Faces", 0.4)
    assert pipeline.zones[0].points == [[0, 0], [1, 0], [1, 1]]


ODD: list[Any] = [None, 5, "x", [], {"a": 1}, {"a": []}, {"a": {"source": 5, "events": {"zones": {"z": [1]}}}}]


@pytest.mark.parametrize("table", ODD)
def test_a_configuration_of_any_shape_is_read(state: State, table: Any) -> None:
    state.neighbours.ask(Neighbourly(CameraCapture={"cameras": table}, Inferencer={"pipelines": table}))
    assert state.neighbours.known().complete
    assert state.snapshot().thing == "thing"


def test_what_cannot_be_read_now_stays_as_it_was_and_is_not_taken_for_nothing(state: State) -> None:
    gone = IpcError("later")
    state.neighbours.ask(Neighbourly(CameraCapture=gone, Inferencer=gone))
    assert not state.neighbours.known().complete
    state.neighbours.ask(
        Neighbourly(CameraCapture={"cameras": {"door": {}}}, Inferencer={"pipelines": {"p": PIPELINE}})
    )
    state.neighbours.ask(Neighbourly(CameraCapture=gone, Inferencer=gone))
    assert state.neighbours.known().private("door")
    absent = NotFoundError("no such component")
    state.neighbours.ask(Neighbourly(CameraCapture=absent, Inferencer=absent))
    known = state.neighbours.known()
    assert (known.complete, known.cameras, known.pipelines) == (True, (), {})
