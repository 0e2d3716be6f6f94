"""Commands keep nothing else waiting, and leave nothing changed that they do not name."""

import threading
import time
from pathlib import Path
from typing import Literal

import pytest

from camera_capture.component import CameraCapture
from camera_capture.config import Config
from camera_support import configured
from edgeml import messages
from edgeml.component import Context
from edgeml.health import Health
from edgeml.messages import CameraCommand
from ipc_support import FakeIpc
from support import eventually

COMMAND = messages.camera_command("c")


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(ipc=FakeIpc(), health=Health("x", "1"), work=tmp_path, root=tmp_path, thing_name="t")


def config(tmp_path: Path, **settings: object) -> Config:
    camera = configured(type="test_pattern", clips={"keep_bytes": 1000}, **settings)
    return Config(cameras={"c": camera}, ring_directory=str(tmp_path))


def send(context: Context, command: Literal["snapshot", "start", "stop"]) -> None:
    ipc = context.ipc
    assert isinstance(ipc, FakeIpc)
    ipc.handlers[COMMAND](COMMAND, messages.encode(CameraCommand(command=command)))


def test_a_snapshot_that_is_waited_for_keeps_no_change_waiting(tmp_path: Path, context: Context) -> None:
    component = CameraCapture(context)
    component.start(config(tmp_path, enabled=False))
    asking = threading.Thread(target=send, args=(context, "snapshot"))
    asking.start()
    time.sleep(0.1)
    began = time.monotonic()
    component.reconfigure(Config(ring_directory=str(tmp_path)))
    assert time.monotonic() - began < 1
    asking.join(10)
    component.stop()
    assert isinstance(context.ipc, FakeIpc)
    assert b"no frame within" in context.ipc.local[-1][1]


def test_a_camera_that_is_started_again_tells_what_it_told(tmp_path: Path, context: Context) -> None:
    component = CameraCapture(context)
    component.start(config(tmp_path))
    gauges = eventually(lambda: context.health.report().gauges, what="gauges")
    assert "cameras.c.clips.kept_bytes" in gauges
    send(context, "stop")
    send(context, "start")
    assert context.health.report().gauges.keys() == gauges.keys()
    component.stop()
