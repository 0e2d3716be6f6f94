"""Clips as files: copies of packets, pictures that are encoded, and what is left of either after a kill."""

import base64
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from camera_capture.clip_file import COPIED, bgr, copied, decoded, encoded, mended
from camera_capture.preroll import Preroll, Unit
from edgeml.errors import SourceError
from localdev.browser import MISSING, PROGRAM, browser
from stream_support import FPS, Made, levels, made, packets, picture

ROOM = 2**22
STEP_NS = 10**9 // FPS


def units_of(stream: Made) -> list[Unit]:
    kept = Preroll(1000, 2**30)
    tap = kept.tap()
    for packet in packets(stream):
        tap(packet)
    return kept.since(0)


def copy(path: Path, units: Iterable[Unit], max_bytes: int = ROOM) -> float:
    units = list(units)
    return copied(path, list(dict.fromkeys(unit.track for unit in units)), units, max_bytes)


@pytest.fixture(scope="module")
def plain() -> list[Unit]:
    return units_of(made(3))


@pytest.fixture(scope="module")
def sounding() -> list[Unit]:
    return units_of(made(3, sound="aac", between=2))


def test_a_copy_has_every_frame_and_its_sound(tmp_path: Path, sounding: list[Unit]) -> None:
    path = tmp_path / "a.mp4"
    assert copy(path, sounding) == pytest.approx(3, abs=0.2)
    assert levels(path) == [number % 12 for number in range(3 * FPS)]
    with av.open(str(path)) as clip:
        assert [stream.type for stream in clip.streams] == ["video", "audio"]
        assert clip.streams.video[0].start_time is not None
        assert len(list(clip.decode(audio=0))) > 20


@pytest.mark.parametrize("step", [0, 1, -1, 10**7], ids=["none", "tiny", "back", "large"])
def test_a_copy_can_be_written_whatever_times_were_told(tmp_path: Path, step: int) -> None:
    kept, given = Preroll(1000, 2**30), packets(made(2, sound="aac"))
    tap = kept.tap()
    for number, packet in enumerate(given):
        packet.pts = packet.dts = 10**9 + number * step
        tap(packet)
    assert copy(tmp_path / "a.mp4", kept.since(0)) > 0
    assert levels(tmp_path / "a.mp4") == [number % 12 for number in range(2 * FPS)]


def test_a_copy_that_grows_too_large_ends_early(tmp_path: Path, plain: list[Unit]) -> None:
    limit = 2**20 + sum(unit.size for unit in plain) // 2
    assert 0.5 < copy(tmp_path / "a.mp4", plain, limit) < 2.5
    assert (tmp_path / "a.mp4").stat().st_size < limit


def frames(count: int, size: tuple[int, int] = (64, 48)) -> Iterator[tuple[int, Any]]:
    return ((number * STEP_NS, picture(number, size)) for number in range(count))


@pytest.mark.parametrize(
    ("size", "max_side", "wanted"),
    [((64, 48), 64, (64, 48)), ((65, 33), 640, (64, 32)), ((320, 241), 101, (100, 76)), ((3, 200), 64, (2, 64))],
    ids=["even", "odd", "smaller", "narrow"],
)
def test_pictures_of_any_size_are_encoded(
    tmp_path: Path, size: tuple[int, int], max_side: int, wanted: tuple[int, int]
) -> None:
    path = tmp_path / "a.mp4"
    assert encoded(path, frames(12, size), FPS, max_side, ROOM) == pytest.approx(12 / FPS)
    with av.open(str(path)) as clip:
        assert (clip.streams.video[0].width, clip.streams.video[0].height) == wanted
    assert len(levels(path)) == 12


def test_each_picture_is_shown_when_it_was_taken(tmp_path: Path) -> None:
    times = [10.0, 10.5, 10.5, 10.4, 12.0, 12.5]  # two of them make no sense
    path = tmp_path / "a.mp4"
    shown = [(int(at * 1e9), picture(number, (64, 48) if number < 5 else (33, 31))) for number, at in enumerate(times)]
    shown[-2] = (shown[-2][0], np.zeros((48, 64), np.uint8))  # a grey one
    assert encoded(path, shown, 4, 64, ROOM) == pytest.approx(2.75)
    with av.open(str(path)) as clip:
        assert [frame.time for frame in clip.decode(video=0)] == pytest.approx([0, 0.5, 2, 2.5], abs=0.01)


def test_an_encoded_clip_that_grows_too_large_ends_early(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    shown = ((number * 10**8, np.roll(noise, 7 * number, 1)) for number in range(1000))
    assert 0 < encoded(tmp_path / "a.mp4", shown, 10, 320, 2**20 + 2**17) < 50
    assert (tmp_path / "a.mp4").stat().st_size < 2**20 + 2**18


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_packets_are_decoded_to_what_they_show_and_when(codec: str) -> None:
    units = units_of(made(1, codec=codec, between=2 if codec == "libx264" else 0))
    assert (units[0].track.codec in COPIED) == (codec == "libx264")
    shown = list(decoded(units))
    assert [round(float(bgr(frame)[:, :24].mean()) / 20) for _, frame in shown] == [
        number % 12 for number in range(FPS)
    ]
    assert [at for at, _ in shown] == sorted(unit.captured_ns for unit in units)


def test_a_camera_that_is_turned_is_shown_upright(tmp_path: Path) -> None:
    units = units_of(made(0.5, container="matroska", turned=90))
    for _, frame in decoded(units):
        image = bgr(frame)
        assert image.shape == (64, 48, 3)
        assert image[:28].min() > 225  # its right side is above now, where masks will look for it
    copy(tmp_path / "a.mp4", units)
    with av.open(str(tmp_path / "a.mp4"), "r") as clip:
        assert next(clip.decode(video=0)).rotation == 90


def test_a_broken_packet_costs_itself(plain: list[Unit]) -> None:
    broken = list(plain)
    broken[3] = plain[3]._replace(packet=av.Packet(b"\0\0\0\1\x65" + bytes(200)))
    assert len(list(decoded(broken))) >= len(plain) - 12
    assert list(decoded([])) == []


@pytest.mark.parametrize("way", ["copied", "encoded"])
@pytest.mark.parametrize("fault", ["full", "nowhere"])
def test_what_cannot_be_written_whole_is_an_error(tmp_path: Path, plain: list[Unit], way: str, fault: str) -> None:
    path = tmp_path / ("a.mp4" if fault == "full" else "no/a.mp4")
    if fault == "full":
        path.symlink_to("/dev/full")
    with pytest.raises(SourceError, match=r"a\.mp4: (No space left|No such file)"):
        copy(path, plain) if way == "copied" else encoded(path, frames(60), FPS, 64, ROOM)


def test_where_there_is_no_picture_there_is_no_clip(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no picture of that time"):
        encoded(tmp_path / "a.mp4", iter([]), FPS, 64, ROOM)


def test_of_a_clip_that_was_cut_off_what_is_whole_plays(tmp_path: Path, sounding: list[Unit]) -> None:
    path, whole = tmp_path / "a.mp4", tmp_path / "whole.mp4"
    copy(whole, sounding)
    data, shown = whole.read_bytes(), set()
    for length in range(0, len(data) + 1, len(data) // 40):
        path.write_bytes(data[:length])
        if not mended(path):
            assert length < len(data) / 2
            continue
        told = levels(path)
        assert told == [number % 12 for number in range(len(told))]
        shown.add(len(told))
    assert max(shown) == 3 * FPS
    assert len(shown) > 3
    path.write_bytes(b"\xff" * 100)
    assert not mended(path)


def killed(stream: list[Unit], path: Path) -> Iterator[Unit]:
    """Two seconds of it, and then the file is what a kill would leave."""
    yield from itertools.islice(stream, 2 * FPS)
    path.with_suffix(".left").write_bytes(path.read_bytes())


def test_what_is_written_is_in_the_file_at_once(tmp_path: Path, plain: list[Unit]) -> None:
    path = tmp_path / "a.mp4"
    copied(path, [plain[0].track], killed(plain, path), ROOM)
    left = path.with_suffix(".left")
    assert mended(left)
    assert FPS <= len(levels(left)) < 2 * FPS


@pytest.mark.skipif(PROGRAM is None, reason=MISSING)
def test_a_browser_plays_them_to_their_ends(tmp_path: Path, sounding: list[Unit], plain: list[Unit]) -> None:
    clips = {name: tmp_path / f"{name}.mp4" for name in ("copied", "sounding", "encoded", "cut off")}
    copy(clips["copied"], plain)
    copy(clips["sounding"], sounding)
    encoded(clips["encoded"], frames(40), FPS, 64, ROOM)
    clips["cut off"].write_bytes(clips["sounding"].read_bytes()[:-1500])
    assert mended(clips["cut off"])
    least = {"copied": 2.9, "sounding": 2.9, "encoded": 1.9, "cut off": 0.9}
    with browser() as page:
        for name, path in clips.items():
            address = f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}"
            page.js(
                "window.video = document.createElement('video'); video.muted = true; video.playbackRate = 4;"
                f"video.src = '{address}'; video.play(); 0"
            )
            page.wait("video.ended || video.error", f"the end of {name}")
            assert page.js("video.error && video.error.message") is None, name
            assert (page.js("video.videoWidth"), page.js("video.videoHeight")) == (64, 48), name
            assert least[name] <= page.js("video.duration") < least[name] + 2.3, name
