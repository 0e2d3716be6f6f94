"""What goes wrong at one port stays there: an unexpected exception at each border, beside a port that goes on."""

import json
import os
import pty
import select
import termios
import threading
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import serial

from edgeml.component import Context
from edgeml.health import Health
from edgeml.inbox import Inbox
from edgeml.outbox import Outbox
from ipc_support import UNEXPECTED, FakeIpc
from serial_scraper import component, link, port, records, service, sinks
from serial_scraper.component import SerialScraper
from serial_scraper.config import Config, IotCore, Port
from serial_scraper.edge_impulse import EdgeImpulseParser
from serial_scraper.records import EdgeImpulse
from support import eventually

ERRORS: dict[str, Callable[[], Exception]] = {
    **UNEXPECTED,
    "termios": lambda: termios.error(5, "Input/output error"),
}
BLOCK = b"Predictions (DSP: 2 ms., Classification: 14 ms., Anomaly: 0 ms.):\n    door: 0.75\n    idle: 0.25\n"


class Ports:
    """A port per kind of error, and a good one, all with boards that print results; `fault` is the bad border."""

    def __init__(self, folder: Path) -> None:
        self.fault, self.crossings = "", dict[str, int]()
        self.core = FakeIpc(self._called, max_iot_bytes=7000)
        ipc: Any = self.core
        health = Health("edgeml.SerialScraper", "1")
        self.context = Context(ipc=ipc, health=health, work=folder, root=folder, thing_name="t")
        self.context.workers.first_s = 0.02
        self.masters: dict[str, int] = {}
        self.slaves: dict[str, str] = {}
        self._kept: list[int] = []
        for name in [*ERRORS, "good"]:
            self.masters[name], slave = pty.openpty()
            tty.setraw(slave)
            os.set_blocking(self.masters[name], False)
            self._kept.append(slave)
            self.slaves[os.ttyname(slave)] = name
        self._ended = threading.Event()
        self._boards = threading.Thread(target=self._print)
        self._boards.start()
        self.component = SerialScraper(self.context)

    def start(self, fault: str) -> None:
        self.fault = fault
        shared: dict[str, Any] = {
            "mode": "listen",
            "idle_gap_ms": 10,
            "iot_core": IotCore(topic="records", max_per_s=5),
        }
        ports = {name: Port(device=path, device_name=f"D_{name}", **shared) for path, name in self.slaves.items()}
        self.component.start(Config(ports=ports))

    def _called(self, call: str, topic: str) -> None:
        if call == "publish":
            self.crossed("local", topic.split("/")[2])
        elif call == "subscribe_iot":
            self.crossed("subscribe", _device(topic, "command/input"))

    def crossed(self, border: str, name: str) -> None:
        if border == self.fault and name in ERRORS:
            self.crossings[name] = self.crossings.get(name, 0) + 1
            raise ERRORS[name]()

    def _print(self) -> None:
        while not self._ended.wait(0.02):
            for master in self.masters.values():
                try:
                    os.write(master, BLOCK)
                except BlockingIOError:
                    termios.tcflush(master, termios.TCIOFLUSH)  # nobody reads

    def count(self, name: str) -> int:
        return self.context.health.counter(name)

    def deliver(self, *names: str) -> None:
        """All of them, from now on."""
        before = len(self.core.local)
        eventually(
            lambda: set(names) <= {topic.split("/")[2] for topic, _ in self.core.local[before:]},
            5,
            f"records of {names}",
        )

    def problems(self) -> set[tuple[str, str]]:
        return {(problem.code, problem.subject) for problem in self.context.health.problems.current()}

    def close(self) -> None:
        self.context.stopping.set()
        self.component.stop()
        self._ended.set()
        self._boards.join()
        for descriptor in (*self.masters.values(), *self._kept):
            os.close(descriptor)


@pytest.fixture
def ports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ports]:
    monkeypatch.setattr(port, "FIRST_PAUSE_S", 0.02)
    monkeypatch.setattr(port, "LONGEST_PAUSE_S", 0.02)
    made = Ports(tmp_path)
    inject(made, monkeypatch)
    yield made
    made.close()


def inject(ports: Ports, patch: pytest.MonkeyPatch) -> None:
    """Let `ports.fault` raise where the foreign code is called."""

    def before(owner: Any, name: str, border: str, whose: Callable[..., str]) -> None:
        whole = getattr(owner, name)

        def call(*given: Any, **options: Any) -> Any:
            ports.crossed(border, whose(*given))
            return whole(*given, **options)

        patch.setattr(owner, name, call)

    def named(descriptor: int) -> str:
        return ports.slaves[os.ttyname(descriptor)]

    before(port, "candidates", "discover", lambda device, usb: ports.slaves[device])
    before(serial.Serial, "open", "open", lambda board: ports.slaves[board.port])
    system = SimpleNamespace(read=os.read, select=select.select)
    before(system, "read", "read", lambda descriptor, most: named(descriptor))
    before(system, "select", "wait", lambda reading, *others: named(reading[0]))
    patch.setattr(link, "os", system)
    patch.setattr(link, "select", system)
    before(sinks, "encode", "message", lambda message: message.port)
    before(Outbox, "put", "iot_core", lambda box, topic, payload: _sender(topic, payload))
    before(Outbox, "put", "edge_impulse", lambda box, topic, payload: _device(topic, "inference/output"))
    before(Outbox, "put", "metrics", lambda box, topic, payload: _device(topic, "model/metrics"))
    before(Outbox, "put", "answer", lambda box, topic, payload: _device(topic, "command/output"))
    whole = service.new_format

    def new_format(plan: Any, context: Any) -> Any:
        made = whole(plan, context)
        before(made, "feed", "parse", lambda lines: plan.name)
        before(made, "flush", "flush", lambda: plan.name)
        return made

    patch.setattr(service, "new_format", new_format)
    patch.setattr(component, "new_format", new_format)


def _sender(topic: str, payload: bytes) -> str:
    return str(json.loads(payload)["port"]) if topic == "records" else ""


def _device(topic: str, end: str) -> str:
    return topic.split("/")[3].removeprefix("D_").partition("_")[0] if topic.endswith(end) else ""


@pytest.mark.parametrize(
    ("border", "counter", "code"),
    [
        ("open", "failures", "source_failed"),
        ("wait", "failures", "source_failed"),
        ("read", "failures", "source_failed"),
        ("discover", "", "worker_failed"),
        ("parse", "", "worker_failed"),
        ("flush", "", "worker_failed"),
        ("message", "message_failed", ""),
        ("local", "local_failed", ""),
        ("iot_core", "iot_core_failed", ""),
        ("edge_impulse", "edge_impulse_failed", ""),
    ],
)
def test_an_error_at_any_border_of_a_port_is_counted_told_and_tried_again(
    ports: Ports, border: str, counter: str, code: str
) -> None:
    ports.start(border)
    for name in ERRORS:
        eventually(lambda: ports.crossings.get(name, 0) > 1, 5, f"another attempt at {name}")  # noqa: B023
        if counter:
            eventually(lambda: ports.count(f"ports.{name}.{counter}"), 5, f"{counter} of {name}")  # noqa: B023
    if not counter:  # one attempt may cross a border twice before it is told of
        eventually(lambda: ports.count("workers.failed") >= len(ERRORS), 5, "failures")
    if code:
        subjects = {f"ports.{name}" if counter else f"port {name}" for name in ERRORS}
        eventually(lambda: {subject for found, subject in ports.problems() if found == code} == subjects, 5, code)
    ports.deliver("good")
    if border in ("iot_core", "edge_impulse"):
        ports.deliver("value")  # a sink takes nothing from the others
    ports.fault = ""
    ports.deliver(*ERRORS)
    assert not [subject for found, subject in ports.problems() if found == "source_failed"]
    assert ports.context.events.empty()


@pytest.mark.parametrize("border", ["metrics", "subscribe"])
def test_metrics_and_subscriptions_that_fail_are_tried_again(ports: Ports, border: str) -> None:
    ports.start(border)
    for name in ERRORS:
        eventually(lambda: ports.crossings.get(name, 0) > 1, 5, f"another attempt at {name}")  # noqa: B023
    ports.deliver(*ERRORS)
    assert "worker_failed" in {code for code, _ in ports.problems()}
    ports.fault = ""
    if border == "subscribe":
        eventually(lambda: len(ports.core.handlers) == len(ERRORS) + 1, 5, "all subscriptions")
    else:
        eventually(lambda: len({topic for topic, *_ in ports.core.iot if "metrics" in topic}) == len(ERRORS) + 1, 5)
    assert ports.context.events.empty()


def test_a_command_that_fails_is_counted_and_the_next_is_answered(ports: Ports) -> None:
    inbox = Inbox(ports.context.health)
    try:
        ports.start("")
        eventually(lambda: len(ports.core.handlers) == len(ERRORS) + 1, 5, "all subscriptions")
        eventually(lambda: len({topic for topic, *_ in ports.core.iot if "metrics" in topic}) == len(ERRORS) + 1, 5)
        for fault in ("answer", ""):
            ports.fault = fault
            ports.core.iot.clear()
            for topic, handler in ports.core.handlers.items():
                inbox.put(handler, topic, json.dumps({"cmd": "get_model_info", "fault": fault}).encode())
            eventually(lambda: any("command/output" in topic for topic, *_ in ports.core.iot), 5, "the good answer")
            eventually(lambda: ports.count("messages.failed") + ports.count("commands_failed") == len(ERRORS), 5)
        eventually(lambda: sum("command/output" in topic for topic, *_ in ports.core.iot) == len(ERRORS) + 1, 5)
    finally:
        inbox.close()
    ports.deliver(*ERRORS)
    assert ports.context.events.empty()


@pytest.mark.parametrize("kind", ERRORS)
def test_a_parser_begins_anew_after_what_it_tripped_over(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Else one block that it cannot finish is met again at every attempt."""
    form = EdgeImpulse(lambda line: None)
    lines, whole, tripping = BLOCK.decode().splitlines(), EdgeImpulseParser.flush, list[Any]()
    assert form.feed(lines) == []

    def fail(parser: Any) -> Any:
        if not tripping:
            tripping.append(parser)
        if parser is tripping[0]:
            raise ERRORS[kind]()
        return whole(parser)

    monkeypatch.setattr(EdgeImpulseParser, "flush", fail)
    with pytest.raises(type(ERRORS[kind]())):
        form.flush()
    assert form.flush() == []
    form.feed(lines)
    assert [record["result"]["classification"] for record in form.flush()] == [{"door": 0.75, "idle": 0.25}]


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("make", ["jsonl", "csv", "regex"])
def test_a_line_that_its_parser_trips_over_is_one_unknown_line(
    monkeypatch: pytest.MonkeyPatch, make: str, kind: str
) -> None:
    failing = [True]

    def convert(text: str) -> str:
        if failing and failing.pop():
            raise ERRORS[kind]()
        return text

    def deep(encoded: bytes) -> bool:
        return not convert("x")

    unknown: list[str] = []
    monkeypatch.setitem(records.TYPES, "str", convert)
    monkeypatch.setattr(records, "too_deep", deep)
    form = {
        "jsonl": lambda: records.jsonl(unknown.append),
        "csv": lambda: records.csv({"n": "str"}, ",", unknown.append),
        "regex": lambda: records.regex('"(?P<n>1)"', {}, unknown.append),
    }[make]()
    line = '{"n": "1"}'
    assert len(form.feed([line, line])) == 1
    assert unknown == [line]
