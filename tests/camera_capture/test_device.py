"""Cameras of the machine: which there are, what they can give, and why they do not. No driver is at hand: its answers
are made here, by the offsets and numbers that a C compiler finds in linux/videodev2.h."""

import errno
import logging
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from camera_capture import v4l2
from camera_capture.kinds import device
from camera_capture.packets import PacketReader
from camera_support import configured, source_of
from edgeml.errors import ConfigError, SourceError

DISCRETE, CONTINUOUS = 1, 2
Offer = dict[str, dict[tuple[int, int], list[int]]]  # format -> size -> frames per second
WEBCAM: Offer = {
    "MJPG": {(1920, 1080): [30, 15], (1280, 720): [60]},
    "YUYV": {(640, 480): [30], (320, 240): []},
}


class Driver:
    """Answers as a driver that offers these."""

    def __init__(self, offer: Offer, kind: int = DISCRETE) -> None:
        self._offer, self._kind = offer, kind

    def __call__(self, descriptor: int, request: int, filled: bytes) -> bytes:
        answer = bytearray(filled)
        (index,) = struct.unpack_from("=I", answer, 0)
        try:
            if request == 0xC0405602:  # VIDIOC_ENUM_FMT
                assert struct.unpack_from("=I", answer, 4) == (1,)  # of video capture
                struct.pack_into("=4s", answer, 44, list(self._offer)[index].encode())
            elif request == 0xC02C564A:  # VIDIOC_ENUM_FRAMESIZES
                sizes = list(self._offer[bytes(answer[4:8]).decode()])
                struct.pack_into("=III", answer, 8, self._kind, *sizes[index])
            elif request == 0xC0D05640:  # VIDIOC_TRY_FMT: the nearest there is
                code = bytes(answer[16:20]).decode()
                struct.pack_into("=II4s", answer, 8, *next(iter(self._offer[code])), code.encode())
            elif request == 0xC034564B:  # VIDIOC_ENUM_FRAMEINTERVALS
                size = struct.unpack_from("=II", answer, 8)
                rates = self._offer[bytes(answer[4:8]).decode()][size[0], size[1]]
                struct.pack_into("=III", answer, 16, DISCRETE, 1, rates[index])
        except (IndexError, KeyError):
            raise OSError(errno.EINVAL, "Invalid argument") from None
        return bytes(answer)


def test_what_a_device_gives_is_told_by_format_size_and_rate() -> None:
    assert v4l2.offered(Path("/dev/null"), Driver(WEBCAM)) == (
        "MJPG 1920x1080 (30, 15/s), 1280x720 (60/s); YUYV 640x480 (30/s), 320x240"
    )
    assert v4l2.offered(Path("/dev/null"), Driver({"NV12": {(64, 48): []}}, CONTINUOUS)) == "NV12 of any size"
    assert v4l2.offered(Path("/dev/null"), Driver({})) == "it does not say"
    assert v4l2.offered(Path("/dev/null")) == "it does not say"  # the kernel's own answer
    assert v4l2.offered(Path("/nowhere")) == "it does not say"


def test_a_device_that_never_stops_telling_is_cut_short() -> None:
    def endless(descriptor: int, request: int, filled: bytes) -> bytes:
        return filled[:8] + struct.pack("=III", DISCRETE, 7, 7) + filled[20:]

    assert len(v4l2.offered(Path("/dev/null"), endless)) <= v4l2.MAX_TEXT


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "by-id"
    folder.mkdir()
    monkeypatch.setattr(v4l2, "NAMES", folder)
    return folder


def test_a_stable_name_leads_to_its_device(names: Path) -> None:
    (names / "usb-046d_HD_Pro-video-index0").symlink_to("/dev/null")
    assert v4l2.device(str(names / "usb-046d_HD_Pro-video-index0")) == Path("/dev/null")


def test_a_device_that_is_not_there_is_told_with_those_that_are(names: Path) -> None:
    with pytest.raises(
        SourceError, match="/dev/video63: cannot be opened as device: no such file or directory; there is"
    ):
        source_of(type="device", location=63)
    (names / "usb-046d_HD_Pro-video-index0").symlink_to("/dev/video0")
    with pytest.raises(SourceError, match=r"there is .*usb-046d_HD_Pro-video-index0"):
        source_of(type="device", location="/dev/v4l/by-id/usb-another")


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.EACCES, "permission denied; is the user in the group video"), (errno.EBUSY, "another program has it")],
)
def test_why_a_device_cannot_be_opened_is_said(number: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(SourceError, match=words):
        v4l2.device("0")


def test_what_is_no_device_is_told(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").touch()
    with pytest.raises(SourceError, match=r"clip\.mp4: cannot be opened as device: it is none"):
        source_of(type="device", location=str(tmp_path / "clip.mp4"))
    with pytest.raises(SourceError, match="/dev/null: cannot be opened as device"):
        source_of(type="device", location="/dev/null")


def test_what_a_device_settles_on_is_known_before_it_is_opened() -> None:
    def settled(wanted: str, offer: Offer = WEBCAM) -> tuple[str, tuple[int, int]]:
        return v4l2.settled(Path("/dev/null"), wanted, 1280, 720, Driver(offer))

    assert settled("MJPG") == ("MJPG", (1920, 1080))
    assert settled("") == ("YUYV", (640, 480))
    assert settled("", {"H264": {(8, 8): []}, "MJPG": {(4, 4): []}}) == ("MJPG", (4, 4))
    assert settled("", {"BA81": {(8, 8): []}}) == ("", (1280, 720))  # FFmpeg's choice
    assert settled("MJPG", {}) == ("MJPG", (1280, 720))  # a driver that tells nothing is tried
    with pytest.raises(SourceError, match=r"does not give H264; it gives MJPG 1920x1080 \(30, 15/s\)"):
        settled("H264")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What FFmpeg is asked for where the device settles on a format and a size."""

    def _asked(taken: str, size: tuple[int, int], **settings: Any) -> dict[str, str]:
        given: list[dict[str, str]] = []

        def reader(camera: object, place: str, options: dict[str, str], *_: object, **__: object) -> PacketReader:
            given.append(options)
            return PacketReader("/nowhere", shown=place, limit_s=1)

        monkeypatch.setattr(device, "reader", reader)
        monkeypatch.setattr(v4l2, "settled", lambda *arguments: (taken, size))
        monkeypatch.setattr(v4l2, "offered", lambda path: "MJPG 1920x1080 (30/s)")
        with pytest.raises(SourceError, match="/dev/null: cannot be opened"):
            source_of(location="/dev/null", **settings)
        return given[0]

    return _asked


def test_ffmpeg_is_asked_for_what_the_device_settles_on(asked: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        options = asked("H264", (1280, 720), input_format="H264", width=1280, height=720, fps=12.5)
        assert options == {"fflags": "+4", "video_size": "1280x720", "input_format": "h264", "framerate": "12.5"}
        assert asked("", (640, 480)) == {"fflags": "+4", "video_size": "640x480"}
        assert asked("YUYV", (320, 240))["video_size"] == "320x240"  # no size is as good as any
        assert asked("MJPG", (640, 480), width=640)["video_size"] == "640x480"
    assert not caplog.records


def test_another_size_is_scaled_as_ever_and_told(asked: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        asked("MJPG", (640, 480), width=1280, height=720)
    assert "wanted=1280x720 taken=640x480: it gives MJPG 1920x1080 (30/s)" in caplog.text


def test_formats_that_nothing_here_can_decode_are_refused() -> None:
    with pytest.raises(ConfigError, match="input_format: invalid enum value 'H265', expected one of"):
        configured(input_format="H265")
