"""Snapshots that fail, by command or by the clock, are answered or tried again, and cost no frame."""

from collections.abc import Callable
from typing import Any

import pytest

from camera_capture import component, snapshots
from camera_capture.camera import Snapshots
from camera_faults_support import ERRORS, NAMES, Running
from camera_support import configured
from edgeml import messages
from edgeml.errors import SpoolError
from edgeml.frames import FrameReader
from edgeml.messages import CameraCommand
from support import eventually


def command(running: Running, camera: str, text: str) -> Any:
    topic = messages.camera_command(camera)
    running.core.handlers[topic](topic, messages.encode(CameraCommand(command=text, request_id="7")))  # type: ignore[arg-type]
    replies = [messages.decode(p, dict) for t, p in running.core.local if t == messages.camera_reply(camera)]
    return replies[-1]


@pytest.mark.parametrize(
    ("owner", "name"),
    [(FrameReader, "read"), (snapshots, "encode_jpeg"), (snapshots, "write_atomic")],
    ids=["read", "encode_jpeg", "write_atomic"],
)
@pytest.mark.parametrize("error", ERRORS, ids=NAMES)
def test_a_snapshot_that_fails_is_answered_so(
    running: Running, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, error: Callable[[], Exception]
) -> None:
    def faulty(*args: Any, **options: Any) -> Any:
        raise error()

    running.start()
    running.delivers("bad")
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, faulty)
        reply = command(running, "bad", "snapshot")
        assert (reply["ok"], reply["request_id"]) == (False, "7")
        assert reply["error"]
    assert command(running, "bad", "snapshot")["path"]
    assert running.is_alive()


def test_snapshots_by_the_clock_go_on_after_any_failure(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[int] = []

    def faulty(*args: Any) -> Any:
        failed.append(1)
        raise KeyError("surprise")

    shots = Snapshots(every_s=0.02, directory=str(running.context.work / "shots"))
    with monkeypatch.context() as patch:
        patch.setattr(snapshots, "encode_jpeg", faulty)
        running.start(configured(type="test_pattern", width=33, height=17, fps=50, snapshots=shots))
        eventually(lambda: len(failed) > 2, what="failures")
    eventually(lambda: running.count("cameras.bad.snapshots") > 1, what="snapshots")
    assert running.is_alive()


def test_a_folder_for_snapshots_that_cannot_be_is_a_problem_of_snapshots_alone(running: Running) -> None:
    (running.context.work / "file").touch()
    shots = Snapshots(every_s=0.02, directory=str(running.context.work / "file" / "folder"))
    running.start(configured(type="test_pattern", width=33, height=17, fps=50, snapshots=shots))
    eventually(lambda: ("source_failed", "cameras.bad.snapshots") in running.codes(), what="a problem")
    running.delivers("bad")


def test_uploads_that_cannot_be_prepared_are_prepared_later(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **options: Any) -> Any:
        raise SpoolError("database or disk is full")

    shots = Snapshots(every_s=1000, s3_bucket="a-bucket")
    with monkeypatch.context() as patch:
        patch.setattr(component, "Uploader", full)
        running.start(configured(type="test_pattern", width=33, height=17, fps=50, snapshots=shots))
        assert ("disk_full", "snapshots") in running.codes()
        running.delivers("bad")
    eventually(lambda: ("disk_full", "snapshots") not in running.codes(), what="the end of the problem")
