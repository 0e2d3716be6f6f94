"""The component as a process: real rings, real files, commands over its JSON lines."""

import os
import signal
import stat
from pathlib import Path
from typing import Any

import cv2
import pytest

from edgeml.frames import FrameReader
from support import Standalone, eventually


@pytest.fixture
def rings(tmp_path: Path) -> Path:
    folder = tmp_path / "rings"
    folder.mkdir()
    return folder


def component(tmp_path: Path, rings: Path, cameras: dict[str, Any], **options: Any) -> Standalone:
    return Standalone("camera_capture", {"ring_directory": str(rings), "cameras": cameras}, tmp_path / "w", **options)


PATTERN = {"type": "test_pattern", "width": "160", "height": "120", "fps": "50"}


def test_frames_reach_a_reader_and_are_announced(tmp_path: Path, rings: Path) -> None:
    with component(tmp_path, rings, {"t": PATTERN}) as running:
        ready = running.message("edgeml/camera/t/frame")
        assert (ready["camera"], ready["width"], ready["height"], ready["pixel_format"]) == ("t", 160, 120, "bgr24")
        with FrameReader("t", directory=rings) as reader:
            frame = reader.read(timeout=2)
            assert frame is not None
            assert frame.image.shape == (120, 160, 3)
        assert running.stop() == 0
    assert list(rings.iterdir()) == []
    assert running.lines[-1]["topic"] == "edgeml/health/CameraCapture"
    assert running.lines[-1]["payload"]["counters"]["cameras.t.captured"] > 0


def test_pixel_formats(tmp_path: Path, rings: Path) -> None:
    cameras = {name: {**PATTERN, "pixel_format": name} for name in ("rgb24", "gray8")}
    with (
        component(tmp_path, rings, cameras),
        FrameReader("rgb24", directory=rings) as colour,
        FrameReader("gray8", directory=rings) as grey,
    ):
        first, second = colour.read(timeout=5), grey.read(timeout=5)
        assert first is not None
        assert second is not None
        assert first.image.shape == (120, 160, 3)
        assert second.image.shape == (120, 160)


def test_a_snapshot_answers_with_a_jpeg(tmp_path: Path, rings: Path) -> None:
    with component(tmp_path, rings, {"t": {**PATTERN, "snapshots": {"keep": 2}}}) as running:
        for number in range(3):
            running.send("edgeml/camera/t/command", {"command": "snapshot", "request_id": f"r{number}"})
            reply = running.message("edgeml/camera/t/reply", count=number + 1)
            assert (reply["request_id"], reply.get("error")) == (f"r{number}", None)
        image = cv2.imread(reply["path"])
        assert image is not None
        assert image.shape == (120, 160, 3)
        assert len(list(Path(reply["path"]).parent.iterdir())) == 2  # bounded


def test_snapshots_in_a_shared_folder_touch_no_other_file(tmp_path: Path, rings: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        (folder / f"holiday-{number}.jpg").touch()
    (folder / "29990101T000000.000Z-t-1.jpg").touch()  # a clock that was wrong once
    shots = {"directory": str(folder), "keep": 1}
    with component(tmp_path, rings, {"t": {**PATTERN, "snapshots": shots}}) as running:
        for number in range(2):
            running.send("edgeml/camera/t/command", {"command": "snapshot", "request_id": number})
            reply = running.message("edgeml/camera/t/reply", count=number + 1)
        assert reply["request_id"] == "1"
        assert Path(reply["path"]).exists()
    assert len(list(folder.glob("holiday-*"))) == 5
    assert len(list(folder.iterdir())) == 6


def test_a_slow_camera_is_not_taken_for_a_hanging_one(tmp_path: Path, rings: Path) -> None:
    slow = {**PATTERN, "fps": 0.5, "stall_timeout_s": 1}
    with component(tmp_path, rings, {"t": slow}) as running:
        running.message("edgeml/camera/t/frame", count=2)
        assert "hangs" not in running.log
        running.stop()
    assert running.lines[-1]["payload"]["counters"] == {"cameras.t.captured": 2}


def test_stop_and_start_by_command(tmp_path: Path, rings: Path) -> None:
    with component(tmp_path, rings, {"t": PATTERN}) as running:
        running.message("edgeml/camera/t/frame")
        running.send("edgeml/camera/t/command", {"command": "stop"})
        running.message("edgeml/camera/t/reply")
        assert list(rings.iterdir()) == []
        running.send("edgeml/camera/t/command", {"command": "start"})
        running.message("edgeml/camera/t/reply", count=2)
        eventually(lambda: list(rings.iterdir()), what="the ring")


def test_a_bad_command_gets_an_answer_that_says_so(tmp_path: Path, rings: Path) -> None:
    with component(tmp_path, rings, {"t": PATTERN}) as running:
        running.send("edgeml/camera/t/command", {"command": "dance"})
        assert "Invalid enum value 'dance'" in running.message("edgeml/camera/t/reply")["error"]


def test_one_camera_changes_while_another_goes_on(tmp_path: Path, rings: Path) -> None:
    with (
        component(tmp_path, rings, {"a": PATTERN, "b": PATTERN}) as running,
        FrameReader("a", directory=rings) as reader,
    ):
        assert reader.read(timeout=5) is not None
        changed = {"ring_directory": str(rings), "cameras": {"a": PATTERN, "b": {**PATTERN, "width": 80}}}
        running.configure(changed)
        with FrameReader("b", directory=rings) as other:
            eventually(lambda: (f := other.read(timeout=1)) is not None and f.width == 80, what="the new width")
        assert reader.read(timeout=2) is not None
        assert reader.stats.reattached == 0


def test_a_bad_change_keeps_what_runs(tmp_path: Path, rings: Path) -> None:
    with component(tmp_path, rings, {"a": PATTERN}) as running, FrameReader("a", directory=rings) as reader:
        assert reader.read(timeout=5) is not None
        running.configure({"ring_directory": str(rings), "cameras": {"a": {**PATTERN, "fps": "fast"}}})
        running.logged('configuration cameras.a.fps: expected float, found "fast"')
        assert reader.read(timeout=2) is not None


def test_a_wrong_configuration_ends_before_any_camera_is_touched(tmp_path: Path, rings: Path) -> None:
    with component(tmp_path, rings, {"a": PATTERN, "b": {"slots": 1}}) as running:
        assert running.ended() == 78
        assert "configuration cameras.b.slots: expected int >= 2, found 1" in running.log
    assert list(rings.iterdir()) == []


def test_a_file_that_appears_later_is_picked_up(tmp_path: Path, rings: Path) -> None:
    picture = tmp_path / "pictures"
    cameras = {"p": {"type": "images", "location": str(picture), "fps": 20, "reconnect_min_s": 0.05}}
    with component(tmp_path, rings, cameras) as running:
        running.logged("no such folder")
        ready = tmp_path / "ready"
        ready.mkdir()
        cv2.imwrite(str(ready / "one.png"), cv2.UMat(24, 32, cv2.CV_8UC3).get())
        ready.rename(picture)
        assert running.message("edgeml/camera/p/frame")["width"] == 32


def test_a_read_that_hangs_is_abandoned_and_its_process_ended(tmp_path: Path, rings: Path) -> None:
    """A stand-in for gst-launch-1.0 gives one frame and hangs; the second start gives frames for ever."""
    tools = tmp_path / "bin"
    tools.mkdir()
    tool = tools / "gst-launch-1.0"
    tool.write_text(
        f"#!/bin/sh\necho $$ >> {tmp_path}/pids\n"
        'for word in "$@"; do case $word in fd=*) frames=/proc/self/fd/${word#fd=};; esac; done\n'
        "head -c 2304 /dev/zero > $frames\n"
        f"[ $(wc -l < {tmp_path}/pids) -gt 1 ] && exec cat /dev/zero > $frames\n"
        "exec sleep 1000\n"
    )
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    camera = {"type": "gstreamer", "location": "any", "width": 32, "height": 24, "fps": 50}
    camera |= {"stall_timeout_s": 0.3, "reconnect_min_s": 0.05}
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    with component(tmp_path, rings, {"g": camera}, env={"PATH": path}) as running:
        running.logged("the read hangs")
        running.message("edgeml/camera/g/frame", count=5)
        assert running.stop() == 0
    assert [alive(int(pid)) for pid in (tmp_path / "pids").read_text().split()] == [False, False]


def test_sigkill_leaves_a_ring_that_the_next_start_replaces(tmp_path: Path, rings: Path) -> None:
    with component(tmp_path, rings, {"t": PATTERN}) as running, FrameReader("t", directory=rings) as reader:
        assert reader.read(timeout=5) is not None
        running.process.send_signal(signal.SIGKILL)
        running.ended()
        with component(tmp_path, rings, {"t": PATTERN}):
            # The killed one may have left a frame that was not read yet.
            eventually(lambda: reader.read(timeout=1) and reader.stats.reattached, what="a frame of the new process")
            assert reader.stats.reattached == 1


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
