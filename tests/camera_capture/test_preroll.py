"""The last seconds of a stream: bounded, from a keyframe on, with times that rise whatever a camera says."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import av
import pytest

from camera_capture import preroll
from camera_capture.preroll import OVERHEAD, TICKS, Preroll, Track
from edgeml.errors import SourceError
from stream_support import FPS, Made, made, packets


@pytest.fixture(scope="module")
def stream() -> Made:
    return made(6, between=2)


class Clock:
    """The time of the preroll."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(preroll, "time", SimpleNamespace(monotonic_ns=lambda: round(self.now * 1e9)))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def fill(kept: Preroll, clock: Clock, given: list[Any], step_s: float = 1 / FPS) -> Any:
    tap = kept.tap()
    for packet in given:
        tap(packet)
        clock.now += step_s
    return tap


@pytest.mark.parametrize(
    ("seconds", "max_bytes", "least", "most"),
    [(0, 10**6, 0.5, 0.6), (1, 10**6, 1.0, 1.6), (4, 10**6, 4.0, 4.6), (60, 10**6, 6.0, 6.0), (60, 20_000, 0.1, 2.5)],
    ids=["none", "one", "four", "all", "bytes"],
)
def test_it_is_bounded_and_begins_with_a_keyframe(
    stream: Made, clock: Clock, seconds: float, max_bytes: int, least: float, most: float
) -> None:
    kept = Preroll(seconds, max_bytes)
    tap = kept.tap()
    for packet in packets(stream):
        tap(packet)
        clock.now += 1 / FPS
        units = kept.since(0)
        assert units[0].begins
        assert kept.size == sum(unit.size + OVERHEAD for unit in units) <= max_bytes
    assert kept.codec == "h264"
    assert least <= len(units) / FPS <= most
    numbers = [unit.number for unit in units]
    assert numbers == list(range(numbers[0], numbers[0] + len(units)))


def test_a_stream_without_keyframes_takes_no_memory(stream: Made, clock: Clock) -> None:
    kept = Preroll(60, 5000)
    given = packets(stream)
    fill(kept, clock, [packet for packet in given if not packet.is_keyframe])
    assert (kept.size, kept.codec, kept.since(0)) == (0, "", [])
    for packet in given[1:]:
        packet.is_keyframe = False
    tap = fill(kept, clock, given)  # one, and none again for as long as there is memory
    assert kept.size == 0
    tap(given[0])
    assert len(kept.since(0)) == 1


@pytest.mark.parametrize(
    "shape", ["as they are", "1970", "none", "backwards", "jumps", "all the same", "wraps", "huge"]
)
def test_times_rise_whatever_a_camera_says(stream: Made, clock: Clock, shape: str) -> None:
    given = packets(stream)
    for number, packet in enumerate(given):
        shift = {"1970": -(10**14), "wraps": -(1 << 33) if number > 60 else 0, "huge": (1 << 62) * (number % 2)}
        move = shift.get(shape, 0) + (0 if shape != "jumps" else 10**9 * (number // 20 % 2))
        packet.pts, packet.dts = packet.pts + move, packet.dts + move
        if shape == "none":
            packet.pts = packet.dts = None
        elif shape == "backwards":
            packet.pts = packet.dts = 10**9 - number * 3000
        elif shape == "all the same":
            packet.pts = packet.dts = 7
    kept = Preroll(60, 10**7)
    began = clock.now
    fill(kept, clock, given)
    units = kept.since(0)
    assert len(units) == len(given)
    times = [unit.dts for unit in units]
    assert all(a < b for a, b in pairwise(times))
    assert all(unit.pts >= unit.dts for unit in units)
    for number, unit in enumerate(units):
        assert unit.captured_ns / 1e9 == pytest.approx(began + number / FPS, abs=0.3)


def test_a_camera_that_sends_the_past_at_once_captured_it_in_the_past(stream: Made, clock: Clock) -> None:
    kept = Preroll(60, 10**7)
    given = packets(stream)
    tap = fill(kept, clock, given[:40], step_s=0.001)  # two seconds at once
    for packet in given[40:]:
        tap(packet)
        clock.now += 1 / FPS
    units = kept.since(0)
    assert units[0].captured_ns / 1e9 == pytest.approx(1000 - 2, abs=0.2)
    assert units[-1].captured_ns / 1e9 == pytest.approx(clock.now, abs=0.2)


def test_a_slow_clock_of_a_camera_is_followed(stream: Made) -> None:
    (packet, *_), now = packets(stream), 10**9
    track = Track.of(packet.stream)
    for second in range(100_000):  # a day and more, in which it loses ten seconds
        own = round(second * TICKS * (1 - 1e-4))
        pts, _ = track.times(own, own, now := now + TICKS)
    assert track.captured_ns(pts) / 1e9 == pytest.approx(now / TICKS, abs=0.5)


def test_clips_get_what_is_wanted_and_hear_of_what_is_lost(stream: Made, clock: Clock) -> None:
    kept = Preroll(60, 10**7)
    given = packets(stream)
    tap = fill(kept, clock, given[:40])
    at = round((clock.now - 0.7) * 1e9)
    units = kept.since(at)
    assert units[0].begins
    assert units[0].captured_ns <= at < units[0].captured_ns + 0.6e9
    assert kept.since(round((clock.now + 3) * 1e9)) == []
    assert kept.since(round((clock.now + 1) * 1e9))[0] is kept.since(0)[-10]
    last = units[-1].number
    assert kept.after(last) == []
    for packet in given[40:43]:
        tap(packet)
    more = kept.after(last)
    assert more is not None
    assert [unit.number for unit in more] == [last + 1, last + 2, last + 3]
    around = kept.around(at)
    assert around[0].begins
    assert at / 1e9 - 0.1 < around[-1].captured_ns / 1e9 < at / 1e9 + 0.4

    small = Preroll(0, 10**7)
    fill(small, clock, given)
    with pytest.raises(SourceError, match="disk too slow"):
        small.after(3)
    tap = small.tap()
    for _ in range(2):  # what came since the last look is there when the connection is not
        assert [unit.number for unit in small.after(len(given) - 3) or ()] == [len(given) - 2, len(given) - 1]
        tap = small.tap()
    assert small.after(len(given) - 1) is None
    assert small.after(0) is None
    assert (small.size, small.since(0)) == (0, [])
    small.close()
    tap(given[0])
    assert small.since(0) == []


def test_what_an_old_connection_gives_is_not_taken(stream: Made, clock: Clock) -> None:
    kept = Preroll(60, 10**7)
    given = packets(stream)
    old = fill(kept, clock, given[:10])
    kept.tap()
    old(given[0])
    assert kept.since(0) == []


def test_sound_is_kept_beside_its_picture(clock: Clock) -> None:
    kept = Preroll(60, 10**7)
    given = packets(made(2, sound="aac"))
    fill(kept, clock, given, step_s=0.01)
    units = kept.since(0)
    sound = [unit for unit in units if unit.track.kind == "audio"]
    assert {unit.track.codec for unit in units} == {"h264", "aac"}
    assert len(sound) > 10
    assert not any(bytes(unit.packet).startswith(b"\xff\xf1") for unit in sound)  # whose headers MP4 does not take
    assert sound[0].track.template.codec_context.extradata == b"\x14\x08"  # AAC-LC, 16 kHz, mono
    picture = units[0]
    source = {packet.stream.type: packet for packet in reversed(given)}
    apart = source["audio"].dts * source["audio"].time_base - source["video"].dts * source["video"].time_base
    assert (sound[0].dts - picture.dts) / TICKS == pytest.approx(float(apart), abs=0.3)


def test_a_stream_that_no_muxer_takes_ends_no_camera(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, given, of = Preroll(60, 10**7), packets(made(1, sound="aac")), Track.of

    def refused(stream: Any) -> Track:
        if stream.type == "audio":
            raise ValueError("'mpegts' format does not support 'gsm' codec")
        return of(stream)

    monkeypatch.setattr(Track, "of", refused)
    fill(kept, clock, given)
    assert {unit.track.kind for unit in kept.since(0)} == {"video"}


def test_data_and_a_second_picture_are_left_out(stream: Made, clock: Clock) -> None:
    (packet, *_) = packets(stream)
    kept = Preroll(60, 10**7)
    tap = kept.tap()
    tap(packet)
    second: Any = av.Packet(bytes(packet))
    for kind in ("data", "video", "audio"):
        fake = SimpleNamespace(
            stream=SimpleNamespace(index=5, type=kind, codec_context=None), stream_index=5, size=second.size
        )
        tap(fake)  # type: ignore[arg-type]
    assert len(kept.since(0)) == 1
