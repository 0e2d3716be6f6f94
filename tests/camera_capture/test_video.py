"""Files play as their timestamps say, and begin again whatever they are."""

import os
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest

from camera_capture import pace
from camera_capture.kinds.device import DeviceCamera
from camera_capture.kinds.file import FileCamera
from camera_capture.kinds.rtsp import RtspCamera
from camera_capture.pace import Pace
from camera_support import source_of
from edgeml.errors import SourceError
from media_support import encoded, vp8, webm

IRREGULAR = [0, 33, 70, 105, 400, 433, 1100, 1133, 1170, 2000, 2033]


def flat(value: int) -> Any:
    return np.full((48, 80, 3), value, np.uint8)


def positions(path: Path, count: int, *, loop: bool = False) -> list[float]:
    source = source_of(type="file", location=str(path), loop=loop)
    try:
        found: list[float] = []
        while len(found) < count and source.grab():
            assert source.position is not None
            found.append(source.position)
            source.retrieve()
        return found
    finally:
        source.close()


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: self.now))

    def play(self, rate: Pace, places: list[float]) -> list[float]:
        """When each frame is shown."""
        shown = []
        for place in places:
            self.now += rate.wait_for(place)
            shown.append(round(self.now, 3))
        return shown


def test_a_file_with_irregular_times_is_played_by_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for duration_ns in (0, 1_000_000):  # the second one says 1000 frames a second
        path = webm(
            tmp_path / "a.webm", [(ms, vp8(flat(20 * n))) for n, ms in enumerate(IRREGULAR)], duration_ns=duration_ns
        )
        places = positions(path, 100)
        assert places == [ms / 1000 for ms in IRREGULAR]
        source = source_of(type="file", location=str(path))
        shown = Clock(monkeypatch).play(Pace(source.fps, live=False), places)
        source.close()
        assert shown == [round(1000 + place, 3) for place in places]


def test_a_loop_goes_on_at_the_rate_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = webm(tmp_path / "a.webm", [(40 * n, vp8(flat(20 * n))) for n in range(5)])
    places = positions(path, 12, loop=True)
    assert places == [0, 0.04, 0.08, 0.12, 0.16] * 2 + [0, 0.04]
    shown = Clock(monkeypatch).play(Pace(25, live=False), places)
    assert [round(b - a, 3) for a, b in pairwise(shown)] == [0.04] * 11


@pytest.mark.parametrize(
    ("places", "steps"),
    [
        ([0, 0, 0], [0.05, 0.05]),  # no times at all: those of the rate
        ([5, 4, 3], [0.05, 0.05]),
        ([0, 10_000, 10_000.1], [0.05, 0.1]),
        ([0, 0.0001, 0.0002], [0.0001, 0.0001]),
        ([-1e300, 1e300, 0], [0.05, 0.05]),
    ],
    ids=["none", "backwards", "a leap", "fast", "absurd"],
)
def test_times_that_make_no_sense_are_those_of_the_rate(
    places: list[float], steps: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)
    shown, waits = [], Pace(20, live=False)
    for place in places:
        clock.now += waits.wait_for(place)
        shown.append(clock.now)
    assert [round(b - a, 4) for a, b in pairwise(shown)] == steps


def test_a_rate_that_nobody_says_is_sane(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert [round(b - a, 3) for a, b in pairwise(clock.play(Pace(0, live=False), [0, 0, 0]))] == [0.04, 0.04]


def test_after_a_long_sleep_nothing_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    timed, plain = Pace(0, live=False), Pace(10, live=False)
    timed.wait_for(0)
    plain.ahead()
    clock.now += 3600
    assert [timed.wait_for(0.1), round(timed.wait_for(0.3), 3)] == [0, 0.2]
    assert [plain.ahead(), round(plain.ahead(), 3)] == [0, 0.1]


@pytest.mark.parametrize("suffix", ["mjpeg", "webm", "avi", "mp4"])
def test_every_kind_of_file_begins_again(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip.{suffix}"
    pictures = [np.full((48, 80, 3), 40 * n, np.uint8) for n in range(4)]
    if suffix == "mjpeg":  # a raw stream: it has no index, no times and no length
        path.write_bytes(b"".join(cv2.imencode(".jpg", p)[1].tobytes() for p in pictures))
    elif suffix == "webm":
        webm(path, [(40 * n, vp8(flat(40 * n))) for n in range(4)])
    else:
        codec = cv2.VideoWriter.fourcc(*("MJPG" if suffix == "avi" else "mp4v"))
        writer = cv2.VideoWriter(str(path), codec, 25.0, (80, 48))
        for picture in pictures:
            writer.write(picture)
        writer.release()
    source = source_of(type="file", location=str(path), loop=True)
    try:
        seen = []
        for _ in range(10):
            assert source.grab()
            seen.append(round(float(source.retrieve().mean()) / 40))
        assert seen == [0, 1, 2, 3] * 2 + [0, 1]
    finally:
        source.close()


def test_a_file_that_is_gone_at_its_end_is_told_in_words(tmp_path: Path) -> None:
    path = webm(tmp_path / "a.webm", [(0, vp8(flat(9))), (40, vp8(flat(99)))])
    source = source_of(type="file", location=str(path))
    assert source.grab()
    assert source.grab()
    path.write_bytes(b"something else")
    with pytest.raises(SourceError, match=r"a\.webm: (cannot be opened as file|ended after 2 frames)"):
        source.grab()
    source.close()


def test_a_name_that_is_no_utf8_is_an_error_and_never_a_crash(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.webm")
    webm(Path(path), [(0, vp8(flat(9)))])
    for camera in (FileCamera(location=path), DeviceCamera(location=path), RtspCamera(location=path)):
        with pytest.raises(SourceError, match="UTF-8"):
            camera.open().open()
    link = tmp_path / "link.webm"
    link.symlink_to(path)
    assert positions(link, 5) == [0]


SIZES = [(80, 48)] * 3 + [(160, 96)] * 3 + [(48, 80)] * 3 + [(80, 48)] * 2


def marked(width: int, height: int) -> Any:
    """White on the right half, red on the upper quarter: what is squashed shows it in no place, but in its size."""
    picture = np.zeros((height, width, 3), np.uint8)
    picture[:, width // 2 :] = 255
    picture[: height // 4] = (0, 0, 255)
    return picture


def write(path: Path, kind: str) -> None:
    if kind == "vp8":
        webm(path, [(40 * n, vp8(marked(*size))) for n, size in enumerate(SIZES)])
    elif kind == "mjpeg":
        path.write_bytes(b"".join(cv2.imencode(".jpg", marked(*size))[1].tobytes() for size in SIZES))


@pytest.mark.parametrize("kind", ["vp8", "mjpeg"])
def test_a_size_that_changes_midway_is_the_size_of_the_frames(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.{'webm' if kind == 'vp8' else 'mjpeg'}"
    write(path, kind)
    source = source_of(type="file", location=str(path), loop=True)
    try:
        for width, height in SIZES * 2:
            assert source.grab()
            image = source.retrieve()
            assert image.shape == (height, width, 3)
            split = int((image[-1, :, 0] > 128).argmax())
            assert abs(split - width // 2) <= 2
    finally:
        source.close()


@pytest.mark.parametrize("turns", range(4))
def test_a_file_of_a_turned_phone_is_upright(tmp_path: Path, turns: int) -> None:
    plain = encoded(tmp_path / "plain.mp4", count=1).read_bytes()
    corner = [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)][turns]  # clockwise
    at = plain.index(b"tkhd") + 4 + 40
    fixed = [corner[0] << 16, corner[1] << 16, 0, corner[2] << 16, corner[3] << 16, 0]
    matrix = b"".join((value & 0xFFFFFFFF).to_bytes(4, "big") for value in fixed)
    (tmp_path / "a.mp4").write_bytes(plain[:at] + matrix + plain[at + 24 :])
    ok, wanted = cv2.VideoCapture(str(tmp_path / "a.mp4")).read()
    assert ok
    source = source_of(type="file", location=str(tmp_path / "a.mp4"))
    assert source.grab()
    assert source.retrieve().shape == wanted.shape == ((48, 80, 3) if turns % 2 == 0 else (80, 48, 3))
    source.close()


def test_a_picture_is_the_color_that_it_was(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as output:
        video: Any = output.add_stream("libx264", 25)
        video.width, video.height, video.pix_fmt = 82, 50, "yuv420p"  # rows that FFmpeg pads
        picture = np.zeros((50, 82, 3), np.uint8)
        picture[:, :41], picture[:, 41:] = (200, 40, 40), (30, 60, 220)
        output.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        output.mux(video.encode())
    source = source_of(type="file", location=str(tmp_path / "a.mp4"))
    assert source.grab()
    image = source.retrieve()
    assert image.shape == picture.shape
    assert np.abs(image[:, [10, 70]].astype(int) - picture[:, [10, 70]]).max() < 12
    source.close()
