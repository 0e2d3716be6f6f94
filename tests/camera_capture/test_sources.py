import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from camera_capture.video import Video
from camera_support import source_of
from edgeml.errors import SourceError
from edgeml.redact import location as redacted


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Ten frames of 64x48 whose brightness rises."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (64, 48))
    for number in range(10):
        writer.write(np.full((48, 64, 3), number * 20, np.uint8))
    writer.release()
    return path


def test_a_file_ends_once_and_loops_on_demand(clip: Path) -> None:
    once = source_of(type="file", location=str(clip), loop=False)
    assert isinstance(once, Video)
    assert once.fps == 25.0
    brightness = []
    while once.grab():
        brightness.append(int(once.retrieve().mean()))
    once.close()
    assert len(brightness) == 10
    assert brightness == sorted(brightness)
    looped = source_of(type="file", location=str(clip))
    assert all(looped.grab() for _ in range(25))
    looped.close()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"nothing\.mp4: no such file"):
        source_of(type="file", location=str(tmp_path / "nothing.mp4"))


def test_a_missing_device_is_named() -> None:
    with pytest.raises(SourceError, match="/dev/video63: cannot be opened as device"):
        source_of(type="device", location="/dev/video63")


@pytest.mark.parametrize("kept", [0, 100, 5000])
def test_a_truncated_or_foreign_file_is_an_error_and_no_crash(clip: Path, kept: int) -> None:
    data = clip.read_bytes()
    clip.write_bytes(data[:kept] if kept < 5000 else os.urandom(kept))
    with pytest.raises(SourceError, match=r"clip\.avi: (cannot be opened|no frame can be decoded)"):
        source = source_of(type="file", location=str(clip))
        source.grab()


def test_pictures_come_by_name_and_bad_ones_are_passed_over(tmp_path: Path) -> None:
    for name, value in (("b.png", 50), ("a.JPG", 10)):
        _, data = cv2.imencode(Path(name).suffix.lower(), np.full((8, 8, 3), value, np.uint8))
        (tmp_path / name).write_bytes(data.tobytes())
    (tmp_path / "empty.png").touch()
    (tmp_path / "garbage.jpg").write_bytes(b"not a picture")
    (tmp_path / "notes.txt").write_text("not looked at")
    source = source_of(type="images", location=str(tmp_path), loop=False)
    seen = []
    while source.grab():
        seen.append(int(source.retrieve().mean()))
    assert seen == [10, 50]
    assert {path.name for path in source.unreadable} == {"empty.png", "garbage.jpg"}


def test_a_folder_without_pictures_says_what_counts_as_one(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no readable picture \(\.bmp, \.jpeg"):
        source_of(type="images", location=str(tmp_path)).grab()


def test_a_pattern_moves() -> None:
    source = source_of(type="test_pattern", width=320, height=240)
    source.grab()
    first = source.retrieve()
    source.grab()
    assert first.shape == (240, 320, 3)
    assert not np.array_equal(first, source.retrieve())


def test_a_pipeline_gives_raw_frames() -> None:
    if not _has_gstreamer():
        pytest.skip("gst-launch-1.0 is not installed (gstreamer1.0-tools, gstreamer1.0-plugins-base)")
    source = source_of(type="gstreamer", location="videotestsrc num-buffers=3 pattern=white", width=64, height=48)
    try:
        assert all(source.grab() for _ in range(3))
        assert source.retrieve().shape == (48, 64, 3)
        assert source.retrieve().min() > 200
        with pytest.raises(SourceError, match="the pipeline ended"):
            source.grab()
    finally:
        source.close()


def test_a_pipeline_that_cannot_start_says_why() -> None:
    if not _has_gstreamer():
        pytest.skip("gst-launch-1.0 is not installed")
    source = source_of(type="gstreamer", location="nosuchelement", width=64, height=48)
    try:
        with pytest.raises(SourceError, match="nosuchelement"):
            source.grab()
    finally:
        source.close()


@pytest.mark.parametrize(
    "location",
    [
        "rtsp://user:secret@192.0.2.7/one",
        "rtsp://admin:p@secret@192.0.2.7/one",
        "rtsp://admin:p/secret@192.0.2.7",
        "http://192.0.2.7/video?user=me&pwd=secret",
        "rtspsrc location=rtsp://192.0.2.7 user-id=me user-pw=secret ! decodebin",
    ],
)
def test_passwords_stay_out_of_logs(location: str) -> None:
    assert "secret" not in redacted(location)
    assert "192.0.2.7" in redacted(location)


def test_a_picture_that_vanishes_is_passed_over(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((4, 4, 3), np.uint8))
    source = source_of(type="images", location=str(tmp_path), loop=False)
    (tmp_path / "a.png").unlink()
    assert source.grab()
    assert not source.grab()


def _has_gstreamer() -> bool:
    return shutil.which("gst-launch-1.0") is not None
