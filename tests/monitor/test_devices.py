"""What Edge Impulse's runner says to IoT Core: heard while somebody wants to know, of this device alone."""

import json
from pathlib import Path
from typing import Any

import pytest

from edgeml.component import Context
from edgeml.edge_impulse.device import default_mac, device_name
from edgeml.errors import NotFoundError, UnauthorizedError
from edgeml.health import Health
from ipc_support import FakeIpc
from monitor.edge_impulse import EdgeImpulse
from monitor.state import MAX_RECORD_BYTES, State

DEVICE = device_name("Cup", default_mac())
RUNNER = {"Parameters": {"device_name": "Cup"}, "topic_prefix": "/ei"}


class Runner(FakeIpc):
    """A core on which the runner may be deployed."""

    runner: dict[str, Any] | None = RUNNER

    def configuration(self, component: str = "") -> dict[str, Any]:
        if component != "edgeml.EdgeImpulseRunner" or self.runner is None:
            raise NotFoundError(component)
        return self.runner


class Rig:
    def __init__(self) -> None:
        self.ipc = Runner(self._crossed)
        self.health = Health("edgeml.Monitor", "1")
        self.state = State("thing", "1", lambda: ())
        self.devices = EdgeImpulse(Context(self.ipc, self.health, Path(), Path(), "thing"), self.state)
        self.refused = False

    def _crossed(self, call: str, topic: str) -> None:
        if self.refused:
            raise UnauthorizedError(topic)

    def look(self) -> set[str]:
        """The topics that are heard after one more look."""
        self.state.neighbours.ask(self.ipc)
        self.devices.look()
        return set(self.ipc.handlers)

    def send(self, ending: str, payload: bytes) -> None:
        self.ipc.handlers[f"/ei/{DEVICE}/{ending}"](f"/ei/{DEVICE}/{ending}", payload)

    def told(self) -> list[Any]:
        return [json.loads(message) for message in self.state.records()]


@pytest.fixture
def rig() -> Rig:
    return Rig()


TOPICS = {f"/ei/{DEVICE}/{ending}" for ending in ("inference/output", "command/input", "command/output")}


def test_it_is_heard_while_somebody_wants_to_know(rig: Rig) -> None:
    assert rig.look() == set()
    assert [device.source for device in rig.state.snapshot().edge_impulse] == [DEVICE]
    rig.state.want_records(1)
    rig.state.want_records(1)
    assert rig.look() == TOPICS
    rig.state.want_records(-1)
    assert rig.look() == TOPICS
    rig.state.want_records(-1)
    assert rig.look() == set()


def test_results_commands_and_answers_are_records_without_their_picture(rig: Rig) -> None:
    rig.state.want_records(1)
    rig.look()
    rig.send("inference/output", json.dumps({"c": {"cup": 0.9}, "image": "x" * 60_000}).encode())
    rig.send("command/input", b'{"cmd": "restart", "value": "<b>"}')
    rig.send("command/output", b'{"result": {"restart": "OK"}}')
    assert [(each["kind"], each["source"], each["record"]) for each in rig.told()] == [
        ("edge_impulse", DEVICE, {"c": {"cup": 0.9}}),
        ("command", DEVICE, {"cmd": "restart", "value": "<b>"}),
        ("edge_impulse", DEVICE, {"result": {"restart": "OK"}}),
    ]
    assert rig.state.snapshot().edge_impulse[0].results == 3


@pytest.mark.parametrize(
    "payload", [b"", b"[]", b"\xff", b"x" * (MAX_RECORD_BYTES + 1), b'{"a":"' + b"x" * 20_000 + b'"}']
)
def test_what_is_none_is_refused(rig: Rig, payload: bytes) -> None:
    rig.state.want_records(1)
    rig.look()
    rig.send("inference/output", payload)
    assert rig.told() == []
    assert rig.health.counter("messages.refused") == 1


def test_a_runner_that_comes_goes_or_has_another_name_is_noticed(rig: Rig) -> None:
    rig.state.want_records(1)
    rig.ipc.runner = None
    assert rig.look() == set()
    rig.ipc.runner = RUNNER
    assert rig.look() == TOPICS
    rig.ipc.runner = {"Parameters": {"device_name": "Other"}}
    assert {topic.split("/")[1] for topic in rig.look()} == {"edgeimpulse"}
    rig.ipc.runner = {"topic_prefix": "/a/b/c/d/e/f/g"}  # more slashes than IoT Core takes: the runner tells
    assert rig.look() == set()


def test_what_is_not_allowed_is_a_problem_until_it_is(rig: Rig) -> None:
    rig.state.want_records(1)
    rig.refused = True
    rig.look()
    assert [problem.code for problem in rig.health.problems.current()] == ["unauthorized"]
    rig.refused = False
    assert rig.look() == TOPICS
    assert not rig.health.problems.current()
