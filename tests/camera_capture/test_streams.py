"""Videos as cameras really send them: their times, sizes and codecs lie or change, and they fall silent."""

import gc
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from camera_capture.decoder import Decoder
from camera_capture.packets import PacketReader
from camera_faults_support import Running
from camera_support import configured, source_of
from edgeml.errors import SourceError
from hostile_http import ENDLESS, Behaviour, RawServer, raw_server
from media_support import encoded, level, sps
from rtsp_support import Recorded, plays, recorded, told
from support import eventually

COUNT, EVERY = 60, 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    return encoded(folder / "a.mp4", count=COUNT, every=EVERY)


@pytest.fixture(scope="module")
def stream(clip: Path) -> Recorded:
    return recorded(clip)


@pytest.fixture
def playing() -> Iterator[Callable[..., Any]]:
    """Opens a camera whose server behaves so."""
    with raw_server(ENDLESS["silence"]) as server:
        sources: list[Any] = []

        def play(behave: Behaviour, **settings: Any) -> Any:
            server.behave = behave
            settings = {"stall_timeout_s": 5, **settings}
            source = configured(type="rtsp", location=server.url.replace("http", "rtsp") + "/s", **settings).open()
            sources.append(source)
            source.open()
            return source

        yield play
        for source in sources:
            source.close()


def levels(source: Any, most: int = 1000) -> list[int]:
    """Of grey, of its frames until it ends."""
    found: list[int] = []
    try:
        while len(found) < most and source.grab():
            found.append(round(float(source.retrieve().mean()) / 20) * 20)
    except SourceError as error:
        assert str(error).endswith("the stream ended")
    return found


def right(count: int = COUNT, step: int = 1) -> list[int]:
    return [level(number) for number in range(0, count, step)]


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_stream_comes_as_it_is_asked_for(playing: Any, stream: Recorded, transport: str) -> None:
    source = playing(plays(stream.sdp, stream.packets, haste=8), transport=transport)
    assert levels(source) == right()


@pytest.mark.parametrize(("codec", "between"), [("libx264", 2), ("libx265", 0)], ids=["B-frames", "HEVC"])
def test_other_streams_come_in_order(playing: Any, folder: Path, codec: str, between: int) -> None:
    clip = encoded(folder / f"{codec}.ts", codec, count=COUNT, every=EVERY, between=between)
    made = recorded(clip)
    source = playing(plays(made.sdp, made.packets, haste=8))
    seen = levels(source)
    assert seen == right()[-len(seen) :]
    assert len(seen) > COUNT - EVERY


TIMES: dict[str, Callable[[float], float]] = {
    "right": lambda at: at,
    "of long ago": lambda at: at + 1e9,
    "that wrap": lambda at: at + 2**32 / 90_000 - 0.4,
    "that run back": lambda at: 10 - at,
    "that leap": lambda at: at + (at > 0.4) * 7200,
    "that leap back": lambda at: at + 7200 - (at > 0.4) * 7200,
    "that stand still": lambda at: 1.0,
}


@pytest.mark.parametrize("what", TIMES)
def test_frames_are_captured_when_they_came_whatever_their_times_say(playing: Any, stream: Recorded, what: str) -> None:
    source = playing(plays(stream.sdp, list(told(stream.packets, TIMES[what])), haste=4))
    captured, began = [], time.monotonic()
    for _ in range(COUNT // 2):
        assert source.grab()
        captured.append(source.captured_ns / 1e9)
        assert began - 2.5 < captured[-1] <= time.monotonic()
    assert all(before < after for before, after in pairwise(captured))


def test_who_falls_silent_is_left_in_time(playing: Any, stream: Recorded) -> None:
    source = playing(plays(stream.sdp, stream.packets, haste=50, ends=False), stall_timeout_s=1)
    began = time.monotonic()
    with pytest.raises(SourceError, match=r"/s: the stream broke off: nothing whole within 0\.9 s"):
        while source.grab():
            pass
    assert time.monotonic() - began < 5


def test_a_silent_read_is_ended_by_another_thread(playing: Any, stream: Recorded) -> None:
    source = playing(plays(stream.sdp, stream.packets, haste=50, ends=False), stall_timeout_s=30)
    told: list[str] = []

    def read() -> None:
        try:
            while source.grab():
                pass
        except SourceError as error:
            told.append(str(error))

    thread = threading.Thread(target=read)
    thread.start()
    eventually(lambda: source.sign_of_life, what="packets")
    source.cancel()
    thread.join(10)
    assert not thread.is_alive()
    assert told[0].endswith("reading was cancelled")


@pytest.mark.parametrize("what", ["silence", "status trickles", "headers flood", "one header floods"])
def test_who_never_comes_to_an_end_is_left_in_time(playing: Any, what: str) -> None:
    began = time.monotonic()
    with pytest.raises(SourceError, match="cannot be opened as rtsp: "):
        playing(ENDLESS[what], stall_timeout_s=0.4)
    assert time.monotonic() - began < 5


def test_a_codec_that_changes_midway_ends_the_stream(playing: Any, stream: Recorded, folder: Path) -> None:
    other = recorded(encoded(folder / "other.ts", "libx265", count=COUNT, every=EVERY))
    packets = [*stream.packets[: COUNT // 2], *((at + 1, data) for at, data in other.packets)]
    source = playing(plays(stream.sdp, packets, haste=8))
    good = 0
    with pytest.raises(SourceError, match=r"ended|cannot be decoded|damaged"):
        while source.grab():
            assert source.retrieve().shape == (48, 80, 3)
            good += 1
    assert good >= COUNT // 2 - 4


def test_a_codec_that_nobody_knows_is_told(playing: Any, stream: Recorded) -> None:
    with pytest.raises(SourceError, match="its video is of a kind that FFmpeg does not know"):
        playing(plays(stream.sdp.replace(b"H264/", b"FOO/"), stream.packets, haste=8), stall_timeout_s=1)


def test_a_size_that_changes_midway_is_that_of_the_frames(folder: Path, tmp_path: Path) -> None:
    parts = [encoded(folder / f"{w}.h264", size=(w, h), count=6) for w, h in ((80, 48), (160, 96), (48, 80))]
    (tmp_path / "a.h264").write_bytes(b"".join(part.read_bytes() for part in parts))
    source = source_of(type="file", location=str(tmp_path / "a.h264"), loop=False)
    shapes = []
    while source.grab():
        shapes.append(source.retrieve().shape[:2])
    source.close()
    assert shapes == [(48, 80)] * 6 + [(96, 160)] * 6 + [(80, 48)] * 6


@pytest.mark.parametrize("midway", [False, True], ids=["from the start", "midway"])
def test_a_frame_that_is_far_too_large_is_not_decoded(folder: Path, tmp_path: Path, midway: bool) -> None:
    whole = encoded(folder / "b.h264", count=6, every=2).read_bytes()
    units = whole.split(b"\0\0\0\1")
    huge = [sps(10_000, 10_000)[4:] if unit[:1] == b"\x67" else unit for unit in units]
    data = (whole if midway else b"") + b"\0\0\0\1".join(huge)
    (tmp_path / "a.h264").write_bytes(data)
    before = psutil.Process().memory_info().rss
    source = configured(type="file", location=str(tmp_path / "a.h264"), loop=False).open()
    with pytest.raises(SourceError, match=r"frames of 10000 x 10000|cannot be decoded"):
        source.open()
        while source.grab():
            assert source.retrieve().shape == (48, 80, 3)
    source.close()
    assert psutil.Process().memory_info().rss < before + (64 << 20)


def test_key_frames_alone_are_shown_at_once(folder: Path, clip: Path) -> None:
    for path in (clip, encoded(folder / "between.mp4", count=COUNT, every=EVERY, between=2)):
        source = source_of(type="file", location=str(path), loop=False, decode="keyframes")
        assert levels(source) == right(step=EVERY)
        source.close()


def test_packets_without_a_key_frame_are_not_waited_for_for_ever(clip: Path) -> None:
    reading = PacketReader(str(clip), shown="cam", limit_s=5).open()
    decoder = Decoder(reading, "cam", keyframes=True, patience_s=0)
    assert decoder.next() is not None
    with pytest.raises(SourceError, match="cam: packets come, and no key frame for 0 s"):
        decoder.next()
    reading.close()


@pytest.mark.parametrize(
    ("hwaccel", "why"),
    [
        ("cuda", "software decodes: "),
        ("v4l2m2m", "software decodes: "),
        ("drm", "FFmpeg here decodes no h264 by drm"),
        ("warp", "FFmpeg here has no hwaccel warp; it has "),
    ],
)
def test_where_hardware_does_not_decode_software_does(clip: Path, hwaccel: str, why: str) -> None:
    source = source_of(type="file", location=str(clip), loop=False, hwaccel=hwaccel)
    assert why in source.software
    assert levels(source) == right()
    source.close()


def test_that_is_a_problem_as_long_as_it_lasts(running: Running, clip: Path) -> None:
    running.start(configured(type="file", location=str(clip), hwaccel="warp"))
    running.delivers("bad")
    assert ("software_decodes", "cameras.bad.decoding") in running.codes()


def test_what_a_tap_does_with_packets_is_its_own_affair(clip: Path) -> None:
    source = configured(type="file", location=str(clip), loop=False).open()
    tapped: list[Any] = []

    def ruin(packet: Any) -> None:
        tapped.append(packet.size)
        packet.pts = packet.dts = 10**9

    source.packets = ruin
    source.open()
    positions = []
    while source.grab():
        positions.append(round((source.position or 0) * 25))
        assert len(tapped) >= len(positions)
    source.close()
    assert positions == list(range(COUNT))
    assert len(tapped) == COUNT


def test_twenty_reconnects_leave_no_descriptor_thread_or_memory(stream: Recorded) -> None:
    process = psutil.Process()

    def once(server: RawServer, *, closes: bool) -> None:
        source = source_of(type="rtsp", location=server.url.replace("http", "rtsp") + "/s")
        assert levels(source, 2)
        if closes:
            source.close()

    with raw_server(plays(stream.sdp, stream.packets, haste=1e6)) as server:

        def after(count: int) -> tuple[int, int, int]:
            for number in range(count):
                once(server, closes=number % 4 > 0)
            gc.collect()
            return process.num_fds(), process.num_threads(), process.memory_info().rss

        first, last = after(4), after(20)
    assert last[0] <= first[0] + 1
    assert last[1] <= first[1] + 1
    assert last[2] <= first[2] + (8 << 20)
