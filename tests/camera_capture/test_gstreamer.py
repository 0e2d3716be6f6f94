"""Pipelines as child processes: frames pixel for pixel, whatever they print, and nothing of them left behind."""

import os
import shutil
import stat
import subprocess
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from camera_capture import piped
from camera_capture.attempt import shaped
from camera_capture.camera import Camera
from camera_capture.kinds.gstreamer import GStreamer, GStreamerCamera
from camera_capture.piped import MAX_LOG
from camera_support import configured, source_of
from edgeml.errors import SourceError
from support import eventually, runs

needs_gstreamer = pytest.mark.skipif(
    shutil.which("gst-launch-1.0") is None, reason="gst-launch-1.0 (gstreamer1.0-tools, gstreamer1.0-plugins-base)"
)


@needs_gstreamer
@pytest.mark.parametrize("pixel_format", ["bgr24", "rgb24", "gray8"])
@pytest.mark.parametrize(("width", "height"), [(854, 480), (426, 240), (1366, 768), (640, 360), (33, 17), (2, 2)])
def test_frames_are_those_of_the_pipeline_at_every_width(width: int, height: int, pixel_format: Any) -> None:
    """The reference has 4 bytes a pixel, and so no padding anywhere."""
    picture = "videotestsrc num-buffers=2 pattern=smpte"
    caps = f"video/x-raw,format=BGRx,width={width},height={height}"
    command = ["gst-launch-1.0", "-q", *picture.split(), "!", caps, "!", "fdsink", "fd=1"]
    plain = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=20).stdout
    expected = np.frombuffer(plain, np.uint8).reshape(2, height, width, 4)[..., :3]
    camera = configured(
        type="gstreamer", location=f"{picture} ! {caps}", width=width, height=height, pixel_format=pixel_format
    )
    source: Any = camera.open()
    try:
        for frame in expected:
            assert source.grab()
            assert np.array_equal(source.retrieve(), frame)
            assert np.array_equal(shaped(source.retrieve(), camera), shaped(np.ascontiguousarray(frame), camera))
        with pytest.raises(SourceError, match="the pipeline ended: it reached its end"):
            source.grab()
    finally:
        source.close()


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A stand-in for gst-launch-1.0: a shell script; $frames is where its frames go."""
    path = tmp_path / "bin" / "gst-launch-1.0"
    path.parent.mkdir()
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
    yield path


def script(tool: Path, body: str) -> None:
    tool.write_text(
        f"#!/bin/sh\necho $$ >> {tool.parent}/pids\n"
        'for word in "$@"; do case $word in fd=*) frames=/proc/self/fd/${word#fd=};; esac; done\n' + body
    )
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)


def opened(location: str = "any", **options: float) -> GStreamer:
    made: GStreamer = source_of(type="gstreamer", location=location, width=4, height=2, **options)
    return made


@pytest.mark.parametrize("lines", [0, 1, MAX_LOG // 1024, 20 * MAX_LOG // 1024])
def test_what_elements_print_shifts_no_frame_blocks_nobody_and_is_not_kept(tool: Path, lines: int) -> None:
    noise = f"yes {'x' * 1023} | head -n {lines}"  # at most more than any pipe holds
    frame = "printf abcdefghijklmnopqrstuvwx > $frames"
    script(tool, f"{noise}\n{noise} >&2\n{frame}\n{noise}\n{frame}\nexec sleep 100\n")
    source = opened()
    tracemalloc.start()
    try:
        for _ in range(2):
            assert source.grab()
            assert source.retrieve().tobytes() == b"abcdefghijklmnopqrstuvwx"
        assert tracemalloc.get_traced_memory()[0] < 4 * MAX_LOG
    finally:
        tracemalloc.stop()
        source.close()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("echo 'ERROR: from element /x: no camera'; exit 1", r"ERROR: from element /x: no camera \(exit code 1\)"),
        ("exit 3", "exit code 3"),
        ("exit 0", "it reached its end"),
        ("kill -SEGV $$", "killed by signal 11 SIGSEGV"),
        ("printf abc > $frames", "it reached its end"),
        ("echo 'WARNING: erroneous pipeline: user-pw=s3cret rtsp://me:s3c ret@192.0.2.7/x?k=s3cret'; exit 1", "192.0"),
    ],
)
def test_why_it_ended_is_said(tool: Path, body: str, reason: str) -> None:
    script(tool, body + "\n")
    source = opened("rtspsrc location='rtsp://me:s3c ret@192.0.2.7/x?k=s3cret' user-pw=s3cret")
    try:
        with pytest.raises(SourceError, match=f"the pipeline ended: .*{reason}") as caught:
            source.grab()
        assert not any(secret in str(caught.value) for secret in ("s3c", "ret@"))
    finally:
        source.close()


def test_a_pipeline_that_gives_half_a_frame_and_no_more_is_given_up(
    tool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(piped, "SPARE_S", 0.1)
    script(tool, "echo 'WARNING: nothing comes'; printf abcd > $frames\nexec sleep 100 > $frames\n")
    source = opened(stall_timeout_s=0.1)
    try:
        with pytest.raises(SourceError, match=r"no whole frame within 0\.3 s: WARNING: nothing comes"):
            source.grab()
    finally:
        source.close()


@pytest.mark.parametrize("stubborn", [False, True], ids=["obeys", "ignores SIGTERM"])
def test_all_of_its_group_goes_with_it(tool: Path, stubborn: bool) -> None:
    trap = "trap '' TERM\n" if stubborn else ""
    script(tool, f"{trap}sleep 100 &\necho $! >> {tool.parent}/pids\nprintf %024d 7 > $frames\nwait\nwait\nsleep 100\n")
    source = opened()
    try:
        assert source.grab()
    finally:
        source.close()
    pids = [int(pid) for pid in (tool.parent / "pids").read_text().split()]
    assert len(pids) == 2
    eventually(lambda: not any(runs(pid) for pid in pids), 5, "the end of the group")


def test_cancel_ends_a_waiting_read_and_close_may_come_twice_in_a_row(tool: Path) -> None:
    script(tool, "exec sleep 100\n")
    source = opened()
    source.cancel()
    with pytest.raises(SourceError, match="killed by signal 9 SIGKILL"):
        source.grab()
    before = descriptors()
    source.close()
    source.cancel()
    assert descriptors() < before


@pytest.mark.parametrize(
    ("camera", "reason"),
    [
        (GStreamerCamera(location="x 'y", width=4, height=2), "No closing quotation"),
        (GStreamerCamera(location="x\0y", width=4, height=2), "without NUL"),
        (GStreamerCamera(location="x\udcff", width=4, height=2), "UTF-8"),
    ],
    ids=range(3),
)
def test_a_pipeline_that_cannot_be_is_refused_in_words(tool: Path, camera: Camera, reason: str) -> None:
    script(tool, "exit 0\n")
    before = descriptors()
    with pytest.raises(SourceError, match=reason):
        camera.open()
    assert descriptors() == before


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
