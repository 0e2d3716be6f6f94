"""What goes wrong at one border costs one request or one connection: an unexpected exception at each of them."""

import itertools
import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from websockets.exceptions import InvalidHandshake, PayloadTooBig, ProtocolError
from websockets.sync.connection import Connection

from edge_impulse_linux import component, session, sources
from edge_impulse_linux.component import EdgeImpulseLinux
from edge_impulse_linux.config import Config, Sensor
from edgeml import http, json_limits, numbers
from edgeml.backoff import Backoff
from edgeml.component import Context
from edgeml.edge_impulse.studio import Studio
from edgeml.errors import StudioError
from edgeml.frames import FrameReader, FrameWriter
from edgeml.health import Health
from ipc_support import UNEXPECTED, FakeIpc
from localdev.simulators.studio import FakeStudio, Request
from support import eventually

ERRORS: dict[str, Callable[[], Exception]] = {
    **UNEXPECTED,
    "runtime": lambda: RuntimeError("can't start new thread"),
    "handshake": lambda: InvalidHandshake("x"),
    "protocol": lambda: ProtocolError("x"),
    "payload": lambda: PayloadTooBig("x"),
}
KEY = "ei_test"
PARSER = SimpleNamespace(**vars(json_limits))  # of what Studio says on its connection


class Device:
    """A device with a camera and two sensors of one topic, connected to a Studio of its own."""

    def __init__(self, folder: Path, studio: FakeStudio) -> None:
        self.studio = studio
        self.core = FakeIpc(secret=json.dumps({"ei_api_key": KEY}))
        ipc: Any = self.core
        self.health = Health("edgeml.EdgeImpulseLinux", "1")
        self.context = Context(ipc=ipc, health=self.health, work=folder, root=folder, thing_name="t")
        self.context.workers.floor_s = self.context.workers.ceiling_s = 0.01
        sensors = {name: Sensor(topic="t", axes=[name], frequency_hz=100) for name in ("a", "b")}
        self.config = Config(cameras=["front"], ring_directory=str(folder), device_id="d", sensors=sensors)
        self.component = EdgeImpulseLinux(self.context)
        self._writer = FrameWriter("front", directory=folder, width=8, height=6)
        self._ended = threading.Event()
        self._camera = threading.Thread(target=self._film)
        self._camera.start()

    def start(self) -> None:
        self.component.start(self.config)

    def _film(self) -> None:
        with self._writer:
            while not self._ended.wait(0.01):
                self._writer.write(np.zeros((6, 8, 3), np.uint8))

    def connected(self) -> None:
        eventually(lambda: self.studio.connected and "d" in self.studio.devices, 5, "a connection")
        eventually(lambda: not self.codes(), 5, "the end of the problem")

    def codes(self) -> set[tuple[str, str]]:
        return {(p.code, p.subject) for p in self.health.problems.current() if p.code != "worker_failed"}

    def refusals(self) -> list[str]:
        return [message["error"] for message in list(self.studio.heard) if "error" in message]

    def uploads(self) -> None:
        """A sample of the camera is taken and arrives."""
        before = len(self.studio.uploads)
        eventually(lambda: self.studio.connected, 5, "a connection")
        self.studio.sample("Camera (8x6)", "after")
        eventually(lambda: len(self.studio.uploads) > before, 5, "an upload")
        eventually(lambda: self.studio.heard_keys()[-1] == "sampleFinished", 5, "its end")

    def close(self) -> None:
        self.context.stopping.set()
        self.component.stop()
        self._ended.set()
        self._camera.join()
        assert self.context.events.empty()


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    monkeypatch.setattr(component, "Backoff", lambda: Backoff(0.01, 0.01))
    monkeypatch.setattr(session, "LOOK_S", 0.01)
    with FakeStudio() as studio:
        monkeypatch.setenv("EI_HOST", studio.host)
        made = Device(tmp_path, studio)
        yield made
        monkeypatch.undo()
        made.close()


def working() -> bool:
    return any(thread.name in ("sample", "live view") for thread in threading.enumerate())


def failing(patch: pytest.MonkeyPatch, owner: Any, name: str, device: Device) -> list[Callable[[], Exception]]:
    """`owner.name` raises each of these once where the device's side calls it; what is left of them."""
    whole, left = getattr(owner, name), list(ERRORS.values())

    def call(*given: Any, **options: Any) -> Any:
        if left and not type(given[0] if given else None).__name__.startswith("Server"):
            raise left.pop()()
        return whole(*given, **options)

    patch.setattr(owner, name, call)
    return left


@pytest.mark.parametrize(
    ("owner", "name", "counter"),
    [
        (session, "connect", "disconnects"),
        (Connection, "send", "disconnects"),
        (Connection, "recv", "disconnects"),
        (component, "register", "disconnects"),
        (PARSER, "loads", "disconnects"),
        (component, "find_project", "workers.failed"),
        (component, "identity", "workers.failed"),
        (component, "secret_value", "workers.failed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_error_at_any_border_of_a_connection_ends_it_and_it_is_made_again(
    device: Device,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    owner: Any,
    name: str,
    counter: str,
) -> None:
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(session, "json_limits", PARSER)
        left = failing(patch, owner, name, device)
        device.start()
        eventually(lambda: not left, 5, "all errors")
        device.connected()
        device.uploads()
    assert device.health.counter(counter) >= len(ERRORS)
    found = "code=unreachable subject=studio" if counter == "disconnects" else "subject=studio"
    assert found in caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    ("owner", "name"),
    [(FrameReader, "read"), (Image, "fromarray"), (Image.Image, "save"), (http, "request")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_sample_that_fails_is_answered_so_and_the_next_one_is_taken(
    device: Device, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str
) -> None:
    monkeypatch.setattr(component, "LOOK_FOR_CAMERAS_S", 60)
    device.start()
    device.connected()
    with monkeypatch.context() as patch:
        left = failing(patch, owner, name, device)
        while left:
            before = len(device.refusals())
            device.studio.sample("Camera (8x6)", "x")
            eventually(lambda: len(device.refusals()) > before, 5, "an answer")  # noqa: B023
            eventually(lambda: not working(), 5, "the end of the sample")
    assert device.health.counter("samples_failed") == len(device.refusals()) == len(ERRORS)
    device.uploads()
    assert device.studio.connections == 1


@pytest.mark.parametrize("asked", ["sample", "live view", "frame of the live view"])
def test_a_request_that_fails_is_answered_so_and_the_connection_stays(
    device: Device, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    begun, unbegun, whole = threading.Event(), list(ERRORS.values()), device.context.spawn

    def spawn(*given: Any, **options: Any) -> threading.Thread:
        if begun.is_set() and unbegun and asked != "frame of the live view":
            raise unbegun.pop()()
        return whole(*given, **options)

    monkeypatch.setattr(device.context, "spawn", spawn)
    device.start()
    device.connected()
    begun.set()
    with monkeypatch.context() as patch:
        left = failing(patch, sources.Camera, "jpeg", device) if asked == "frame of the live view" else unbegun
        while left:
            before = len(device.refusals())
            if asked == "sample":
                device.studio.sample("a", "x")
            else:
                device.studio.ask({"startSnapshot": True})
            eventually(lambda: len(device.refusals()) > before, 5, "an answer")  # noqa: B023
            eventually(lambda: not working(), 5, "the end of the stream")
    assert device.health.counter("requests_failed") == len(ERRORS)
    device.uploads()
    assert device.studio.connections == 1


@pytest.mark.parametrize("label", ["\ud800", "x\x00y", "\r\nx-api-key: y", "é" * 5000])
def test_labels_that_no_header_can_hold_cost_no_more_than_the_connection(
    device: Device, caplog: pytest.LogCaptureFixture, label: str
) -> None:
    device.start()
    device.connected()
    device.studio.sample("Camera (8x6)", label)
    studio = device.studio
    eventually(lambda: device.refusals() or studio.uploads or studio.connections > 1, 5, "an answer")
    eventually(lambda: not working(), 5, "the end of the sample")
    device.uploads()
    assert studio.hmac_key not in caplog.text


def test_a_camera_that_fails_takes_neither_sensors_nor_connection_with_it(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        broken = dict(ERRORS)

        def describe(camera: Any, timeout: float) -> Any:
            raise broken[next(iter(broken))]()

        patch.setattr(sources.Camera, "describe", describe)
        patch.setattr(component, "LOOK_FOR_CAMERAS_S", 0.02)
        device.start()
        eventually(lambda: device.studio.connected, 5, "a connection")
        while len(broken) > 1:
            before = device.health.counter("cameras.front.failed")
            eventually(lambda: device.health.counter("cameras.front.failed") > before, 5, "a look")  # noqa: B023
            broken.pop(next(iter(broken)))
        assert [entry["name"] for entry in device.studio.hello()["sensors"]] == ["a", "b"]
        assert ("source_failed", "cameras.front") in device.codes()
        assert device.studio.connections == 1
    eventually(lambda: device.studio.connections == 2, 5, "a registration with the camera")
    device.connected()
    device.uploads()


def test_a_message_that_one_sensor_trips_over_is_heard_by_the_others(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, errors = numbers.measured, itertools.cycle(ERRORS.values())
    sent = 0

    def measured(value: Any) -> float:
        if value == "trips":
            raise next(errors)()
        return whole(value)

    def arrived() -> bool:
        nonlocal sent
        sent += 1
        device.core.handlers["t"]("t", b'{"a": "trips", "b": 2}')
        return bool(device.studio.uploads) and sent > len(ERRORS)

    monkeypatch.setattr(sources, "measured", measured)
    device.start()
    device.connected()
    device.studio.sample("b", "x", length=20)
    eventually(arrived, 5, "an upload of what the other sensor heard")
    assert device.studio.uploads[0].content["payload"]["values"] == [[2.0]] * 2
    assert device.health.counter("sensors.a.rejected") == sent
    assert device.health.counter("sensors.b.rejected") == 0


@pytest.mark.parametrize("payload", [b"[" * 200_000, b"1" + b"0" * 401, b'"\\ud800"', b'{"a": {}, "b": []}', b"\xff"])
def test_values_that_are_none_are_counted(device: Device, payload: bytes) -> None:
    device.start()
    device.core.handlers["t"]("t", payload)
    assert device.health.counter("sensors.a.rejected") == device.health.counter("sensors.b.rejected") == 1


@pytest.mark.parametrize("projects", [{"id": 1}, [1], [[]], [{}], [{"id": "x"}], [{"id": None}], "text", 7, []])
def test_projects_that_are_not_understood_are_an_error_of_studio(projects: Any) -> None:
    class Odd(FakeStudio):
        def answer(self, request: Request) -> tuple[int, Any]:
            return 200, {"success": True, "projects": projects}

    with Odd() as studio, pytest.raises(StudioError):
        Studio(KEY, f"http://{studio.host}:4800").project()
