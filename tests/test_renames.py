"""A part that is renamed or removed hears no more under its former name, and leaves no subscription behind."""

import functools
from pathlib import Path

import msgspec
import pytest

from camera_capture import component as cameras
from camera_capture.config import Config as Cameras
from camera_support import configured
from edge_impulse_linux import component as studio
from edge_impulse_linux.config import Config as Studio
from edge_impulse_linux.config import Sensor
from edgeml.component import Context
from edgeml.edge_impulse.listener import CommandListener, Device
from edgeml.health import Health
from ipc_support import FakeIpc
from sample_requester import component as requests
from sample_requester.config import Config as Requests
from support import eventually


@pytest.fixture
def ipc() -> FakeIpc:
    return FakeIpc()


@pytest.fixture
def context(ipc: FakeIpc, tmp_path: Path) -> Context:
    return Context(ipc=ipc, health=Health("a", "1"), work=tmp_path, root=tmp_path, thing_name="thing")


def test_a_camera(ipc: FakeIpc, context: Context, tmp_path: Path) -> None:
    capture = cameras.CameraCapture(context)
    off = configured(type="test_pattern", enabled=False)
    try:
        capture.start(Cameras(cameras={"a": off, "b": off}, ring_directory=str(tmp_path)))
        assert sorted(ipc.handlers) == ["edgeml/camera/a/command", "edgeml/camera/b/command"]
        capture.reconfigure(Cameras(cameras={"c": off, "b": off}, ring_directory=str(tmp_path)))
        assert sorted(ipc.handlers) == ["edgeml/camera/b/command", "edgeml/camera/c/command"]
    finally:
        context.stopping.set()
        capture.stop()


def test_a_reply_topic(ipc: FakeIpc, context: Context) -> None:
    requester = requests.SampleRequester(context)
    for topic in ("x", "y", "y", "x"):
        requester.reconfigure(msgspec.structs.replace(Requests(), reply_topic=topic))
        assert list(ipc.handlers) == [topic]


def test_a_sensor_of_studio(ipc: FakeIpc, context: Context) -> None:
    linux = studio.EdgeImpulseLinux(context)
    linux.start(Studio())
    try:
        for names in (["a", "b"], ["b", "c"], []):
            sensors = {name: Sensor(topic=f"t/{name}", axes=["x"]) for name in names}
            linux.reconfigure(Studio(sensors=sensors))
            assert sorted(ipc.handlers) == [f"t/{name}" for name in names]
    finally:
        linux.stop()


def test_a_device_that_takes_commands(ipc: FakeIpc, context: Context, tmp_path: Path) -> None:
    listener = CommandListener(context)
    for names in (["a", "b"], ["b", "c"], ["a"], []):
        listener.listen({f"c/{name}": Device(tmp_path / name, lambda payload: None) for name in names})
        wanted = [f"c/{name}" for name in names]
        eventually(functools.partial(_hears, ipc, wanted))


def _hears(ipc: FakeIpc, topics: list[str]) -> bool:
    return sorted(ipc.handlers) == topics
