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
from edgeml.ipc import Handler, StandaloneIpc, Subscription
from sample_requester import component as requests
from sample_requester.config import Config as Requests
from support import eventually


class Counting(StandaloneIpc):
    """Knows which topics are heard."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def subscribe(self, topic: str, handler: Handler) -> Subscription:
        self.heard.append(topic)
        return Subscription(lambda received: None, handler, lambda: self.heard.remove(topic))

    def subscribe_iot(self, topic: str, handler: Handler, *, qos: int = 1) -> Subscription:
        return self.subscribe(topic, handler)


@pytest.fixture
def ipc() -> Counting:
    return Counting()


@pytest.fixture
def context(ipc: Counting, tmp_path: Path) -> Context:
    return Context(ipc=ipc, health=Health("a", "1"), work=tmp_path, root=tmp_path, thing_name="thing")


def test_a_camera(ipc: Counting, context: Context, tmp_path: Path) -> None:
    capture = cameras.CameraCapture(context)
    off = configured(type="test_pattern", enabled=False)
    try:
        capture.start(Cameras(cameras={"a": off, "b": off}, ring_directory=str(tmp_path)))
        assert sorted(ipc.heard) == ["edgeml/camera/a/command", "edgeml/camera/b/command"]
        capture.reconfigure(Cameras(cameras={"c": off, "b": off}, ring_directory=str(tmp_path)))
        assert sorted(ipc.heard) == ["edgeml/camera/b/command", "edgeml/camera/c/command"]
    finally:
        context.stopping.set()
        capture.stop()


def test_a_reply_topic(ipc: Counting, context: Context) -> None:
    requester = requests.SampleRequester(context)
    for topic in ("x", "y", "y", "x"):
        requester.reconfigure(msgspec.structs.replace(Requests(), reply_topic=topic))
        assert ipc.heard == [topic]


def test_a_sensor_of_studio(ipc: Counting, context: Context) -> None:
    linux = studio.EdgeImpulseLinux(context)
    for names in (["a", "b"], ["b", "c"], []):
        sensors = {name: Sensor(topic=f"t/{name}", axes=["x"]) for name in names}
        linux._subscribe(Studio(sensors=sensors))
        assert sorted(ipc.heard) == [f"t/{name}" for name in names]


def test_a_device_that_takes_commands(ipc: Counting, context: Context, tmp_path: Path) -> None:
    listener = CommandListener(context)
    for names in (["a", "b"], ["b", "c"], ["a"], []):
        listener.listen({f"c/{name}": Device(tmp_path / name, lambda payload: None) for name in names})
        wanted = [f"c/{name}" for name in names]
        eventually(functools.partial(_hears, ipc, wanted))


def _hears(ipc: Counting, topics: list[str]) -> bool:
    return sorted(ipc.heard) == topics
