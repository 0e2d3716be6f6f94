"""What Edge Impulse devices say to IoT Core and are told: heard while somebody wants to know, of this machine alone."""

import json
import re
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from edgeml.component import Context
from edgeml.edge_impulse.device import default_mac, device_name
from edgeml.errors import NotFoundError, UnauthorizedError
from edgeml.health import Health
from edgeml.ipc import matches
from ipc_support import FakeIpc
from live_support import opened
from monitor.component import AT_LEAST_S, Monitor
from monitor.config import Config
from monitor.edge_impulse import EdgeImpulse
from monitor.neighbours import MAX_BOARDS, MAX_NAMES
from monitor.state import MAX_RECORD_BYTES, State
from monitor_support import QUIET
from support import ROOT, eventually

DEVICE = device_name("Cup", default_mac())
RUNNER = {"Parameters": {"device_name": "Cup"}, "topic_prefix": "/ei"}
BOARDS = {"topic_prefix": "/ei", "ports": {"yard": {}, "gate": {"device_name": "Gate"}, "meter": {"format": "csv"}}}
YARD, GATE = (device_name(name, default_mac()) for name in ("MyEdgeImpulseDevice_yard", "Gate"))


class Runner(FakeIpc):
    """A core on which the runner may be deployed."""

    runner: dict[str, Any] | None = RUNNER
    boards: dict[str, Any] | None = None

    def configuration(self, component: str = "") -> dict[str, Any]:
        known = {"edgeml.EdgeImpulseRunner": self.runner, "edgeml.SerialScraper": self.boards}
        if (found := known.get(component)) is None:
            raise NotFoundError(component)
        return found


class Rig:
    def __init__(self) -> None:
        self.ipc = Runner(self._crossed)
        self.health = Health("edgeml.Monitor", "1")
        self.state = State("thing", "1", lambda: ())
        self.devices = EdgeImpulse(Context(self.ipc, self.health, Path(), Path(), "thing"), self.state)
        self.refused = ""  # what a topic begins with that is not allowed

    def _crossed(self, call: str, topic: str) -> None:
        if self.refused and topic.startswith(self.refused):
            raise UnauthorizedError(topic)

    def look(self) -> set[str]:
        """The topics that are heard after one more look."""
        self.state.neighbours.ask(self.ipc)
        self.devices.look()
        return set(self.ipc.handlers)

    def send(self, ending: str, payload: bytes, device: str = DEVICE) -> None:
        topic = f"/ei/{device}/{ending}"
        self.ipc.handlers[topic](topic, payload)

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
    assert [(each["kind"], each["source"], each["what"], each["record"]) for each in rig.told()] == [
        ("edge_impulse", DEVICE, "said", {"c": {"cup": 0.9}}),
        ("edge_impulse", DEVICE, "command", {"cmd": "restart", "value": "<b>"}),
        ("edge_impulse", DEVICE, "answer", {"result": {"restart": "OK"}}),
    ]
    assert rig.state.snapshot().edge_impulse[0].results == 3


def test_commands_and_answers_of_serial_devices_are_those_of_their_ports(rig: Rig) -> None:
    """What they find comes on the core; there is one device of each kind that is called the same."""
    rig.ipc.runner, rig.ipc.boards = {**RUNNER, "Parameters": {"device_name": "MyEdgeImpulseDevice_yard"}}, BOARDS
    rig.state.want_records(1)
    assert rig.look() >= {f"/ei/{device}/command/{way}" for device in (YARD, GATE) for way in ("input", "output")}
    assert f"/ei/{GATE}/inference/output" not in rig.look()
    rig.send("command/input", b'{"cmd": "restart"}', GATE)
    rig.send("command/output", b'{"result": {}}', GATE)
    assert [(each["kind"], each["source"], each["what"]) for each in rig.told()] == [
        ("serial", "gate", "command"),
        ("serial", "gate", "answer"),
    ]
    ports = {each.port: (each.records, each.device) for each in rig.state.snapshot().serial}
    assert ports == {"gate": (0, GATE), "meter": (0, ""), "yard": (0, YARD)}


@pytest.mark.parametrize("ports", [None, {}, "x", []], ids=repr)
def test_without_ports_there_is_one(rig: Rig, ports: Any) -> None:
    rig.ipc.runner, rig.ipc.boards = None, {"ports": ports, "Parameters": {"device_name": "Cup"}, "topic_prefix": "/ei"}
    rig.state.want_records(1)
    assert rig.look() == {f"/ei/{DEVICE}/command/input", f"/ei/{DEVICE}/command/output"}
    assert [each.port for each in rig.state.snapshot().serial] == ["mcu"]


def test_boards_that_are_too_many_use_up_no_subscriptions(rig: Rig) -> None:
    rig.ipc.runner, rig.ipc.boards = None, {"ports": {f"p{number:02}": {} for number in range(100)}}
    rig.state.want_records(1)
    assert len(rig.look()) == 2 * MAX_BOARDS
    assert len(rig.state.snapshot().serial) == MAX_NAMES


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
    """And what is allowed is heard all the same."""
    rig.ipc.boards = {**BOARDS, "topic_prefix": "/other", "ports": {"mcu": {}}}
    rig.state.want_records(1)
    rig.refused = "/other"
    assert rig.look() == TOPICS
    assert [problem.code for problem in rig.health.problems.current()] == ["unauthorized"]
    rig.refused = ""
    assert rig.look() > TOPICS
    assert not rig.health.problems.current()


def test_a_page_that_asks_all_the_time_does_not_hurry_the_core(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look asks the core for configurations, and subscribes at AWS IoT Core or no longer."""
    caplog.set_level("INFO")
    looks: list[float] = []
    monkeypatch.setattr(EdgeImpulse, "look", lambda devices: looks.append(time.monotonic()))
    context = Context(Runner(), Health("edgeml.Monitor", "1"), tmp_path, tmp_path, "thing")
    monitor = Monitor(context)
    try:
        monitor.start(msgspec.convert({**QUIET, "auth": "off", "ring_directory": str(tmp_path), "report_s": 0}, Config))
        (base,) = eventually(lambda: re.findall(r"address=http://(\S+)/", caplog.text), 10, "the page's address")
        with opened(base) as page:
            began = time.monotonic()
            for _ in range(60):
                page.send('{"records": true}')
                page.send('{"records": false}')
                time.sleep(0.01)
        took = time.monotonic() - began
        assert 1 <= sum(look > began for look in looks) <= 2 + took / AT_LEAST_S
    finally:
        context.stopping.set()
        monitor.stop()


def test_the_recipe_lets_all_of_them_be_heard(rig: Rig) -> None:
    rig.ipc.runner, rig.ipc.boards = {}, {"ports": BOARDS["ports"]}
    rig.state.want_records(1)
    recipe = yaml.safe_load((ROOT / "recipes" / "edgeml.Monitor.yaml").read_text(encoding="utf-8"))
    access = recipe["ComponentConfiguration"]["DefaultConfiguration"]["accessControl"]["aws.greengrass.ipc.mqttproxy"]
    allowed = [
        resource
        for policy in access.values()
        if policy["operations"] == ["aws.greengrass#SubscribeToIoTCore"]
        for resource in policy["resources"]
    ]
    topics = rig.look()
    assert len(topics) == 7  # three of the runner, two of each board
    assert [topic for topic in topics if not any(matches(resource, topic) for resource in allowed)] == []
