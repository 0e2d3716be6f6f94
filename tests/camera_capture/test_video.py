"""Files play as their timestamps say, and begin again whatever they are."""

import os
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from camera_capture import pace
from camera_capture.file_sizes import MAX_SIDE, size_in
from camera_capture.kinds.device import DeviceCamera
from camera_capture.kinds.file import FileCamera
from camera_capture.kinds.rtsp import RtspCamera
from camera_capture.pace import Pace
from camera_support import source_of
from edgeml.errors import SourceError
from media_support import vp8, webm

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
            camera.open()
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


def sps(width: int, height: int, *, profile: int = 66, crop: tuple[int, int] = (0, 0), fields: bool = False) -> bytes:
    """A sequence parameter set as H.264 7.3.2.1.1 writes it, in an Annex B packet behind a delimiter."""

    def ue(value: int) -> str:
        return "0" * ((value + 1).bit_length() - 1) + f"{value + 1:b}"

    bits = f"{profile:08b}{0:08b}{30:08b}" + ue(0)
    if profile == 100:
        bits += ue(1) + ue(0) + ue(0) + "0" + "1" + "1" + ue(1) * 16 + "0" * 7
    bits += ue(0) + ue(0) + ue(2) + ue(1) + "0" + ue(width // 16 - 1) + ue(height // (32 if fields else 16) - 1)
    bits += ("00" if fields else "1") + "1" + ("1" + ue(0) + ue(crop[0]) + ue(0) + ue(crop[1]) if any(crop) else "0")
    bits += "01"
    bits = bits.ljust(-(-len(bits) // 8) * 8, "0")
    raw = int(bits, 2).to_bytes(len(bits) // 8)
    escaped = raw.replace(b"\0\0\0", b"\0\0\3\0").replace(b"\0\0\1", b"\0\0\3\1")
    return b"\0\0\0\1\x09\xf0\0\0\0\1\x67" + escaped + b"\0\0\1\x65" + bytes(20)


def vp9(width: int, height: int) -> bytes:
    """The start of a key frame in profile 0."""
    return bytes.fromhex("82498342") + (0b001_0 << 36 | (width - 1) << 20 | (height - 1) << 4).to_bytes(5) + b"x"


@pytest.mark.parametrize(
    ("packet", "codec", "size"),
    [
        (sps(640, 480), b"h264", (640, 480)),
        (sps(1920, 1088, crop=(0, 4)), b"avc1", (1920, 1080)),
        (sps(1920, 1088, crop=(0, 2), fields=True), b"h264", (1920, 1080)),
        (sps(1280, 720, profile=100), b"h264", (1280, 720)),
        (vp9(640, 480), b"vp90", (640, 480)),
        (vp8(np.zeros((48, 80, 3), np.uint8)), b"vp80", (80, 48)),
        (b"", b"h264", None),
        (b"\0\0\1\x67", b"h264", None),
        (b"\0\0\1\x67" + bytes(300), b"h264", None),
        (b"\0\0\1\x67" + b"\xff" * 300, b"h264", None),
        (b"\0\0\1", b"avc1", None),
        (b"\x82", b"vp90", None),
        (b"abc", b"vp80", None),
        (b"\xff\xd8\xff", b"mjpg", None),
    ],
    ids=range(14),
)
def test_sizes_of_packets(packet: bytes, codec: bytes, size: tuple[int, int] | None) -> None:
    found = size_in(codec, packet)
    assert found == size or (size is None and packet.endswith(b"\xff"))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (MAX_SIDE - 1, 1), (MAX_SIDE, MAX_SIDE), (1, MAX_SIDE)])
def test_sides_up_to_what_a_frame_may_have(width: int, height: int) -> None:
    assert size_in(b"vp90", vp9(width, height)) == (width, height)


@pytest.mark.parametrize(
    ("packet", "codec"),
    [
        (vp9(MAX_SIDE + 1, 1), b"vp90"),
        (vp9(1, MAX_SIDE + 1), b"vp90"),
        (vp9(1 << 16, 1 << 16), b"vp90"),
        (bytes(3) + b"\x9d\x01\x2a" + bytes(4), b"vp80"),
        (bytes(3) + b"\x9d\x01\x2a" + bytes([16, 0, 0, 0]), b"vp80"),
    ],
    ids=["wider", "higher", "the most that is written", "none", "no height"],
)
def test_sides_beyond_are_no_size(packet: bytes, codec: bytes) -> None:
    assert size_in(codec, packet) is None
