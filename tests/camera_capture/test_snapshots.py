"""Snapshots of a real ring: how many are kept, and whose."""

from pathlib import Path

import numpy as np
import pytest

from camera_capture.camera import Snapshots
from camera_capture.snapshots import SnapshotTaker
from edgeml.component import Context
from edgeml.frames import FrameWriter
from edgeml.health import Health
from ipc_support import FakeIpc


@pytest.mark.parametrize("keep", [1, 3])
@pytest.mark.parametrize("taken", [0, 1, 2, 3, 4, 6])
def test_the_newest_are_kept_and_no_other_file_is_touched(tmp_path: Path, keep: int, taken: int) -> None:
    folder = tmp_path / "shots"
    folder.mkdir()
    others = {"notes.txt", "20200101T000000.000Z-back-1.jpg"}
    for name in others:
        (folder / name).touch()
    context = Context(ipc=FakeIpc(), health=Health("x", "1"), work=tmp_path, root=tmp_path, thing_name="t")
    settings = Snapshots(directory=str(folder), keep=keep)
    with FrameWriter("front", directory=tmp_path, width=8, height=8) as writer:
        taker = SnapshotTaker("front", settings, context, tmp_path, lambda: None)
        made = []
        for number in range(taken):
            writer.write(np.zeros((8, 8, 3), np.uint8), wall_ns=number * 10**9)
            made.append(taker.take()[0].name)
        taker.stop()
    assert {path.name for path in folder.iterdir()} == others | set(made[-keep:])
    assert context.health.counter("cameras.front.snapshots") == taken
