"""What is motion, and what is not."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from camera_capture.motion import MotionDetector, MotionSettings, light
from camera_capture.watch import MotionWatch
from camera_support import configured
from edgeml.errors import ConfigError
from edgeml.frames import FrameReader, Motion
from edgeml.health import Health
from edgeml.messages import CameraMotion
from motion_support import (
    HEIGHT,
    WIDTH,
    Frames,
    Image,
    Noise,
    as_picture,
    garage,
    infrared,
    man,
    moments,
    walk,
)
from support import Standalone

EACH = MotionSettings(every_s=0)
SHORT = MotionSettings(every_s=0, hold_s=0.5)


def ramp(*factors: float) -> list[float]:
    return [1.0] * 10 + list(factors) + [factors[-1]] * 20


def lit(noise: Noise, factors: list[float], sigma: float = 3) -> list[np.ndarray]:
    return [noise.on(garage() * factor, sigma) for factor in factors]


NOTHING: dict[str, Frames] = {
    "one picture": lambda noise: [garage()] * 20,
    "noise by day": lambda noise: [noise.on(garage(), 5) for _ in range(40)],
    "much noise": lambda noise: [noise.on(garage(), 30) for _ in range(40)],
    "a night's noise": lambda noise: [noise.on(garage() / 6, 12, grain=5) for _ in range(40)],
    "noise of a codec": lambda noise: [noise.on(garage(), 12, grain=9) for _ in range(40)],
    "a cloud of specks": lambda noise: [noise.specks(garage(), 0.05) for _ in range(30)],
    "a snow of specks": lambda noise: [noise.specks(garage(), 0.3) for _ in range(30)],
    "clouds before the sun": lambda noise: lit(noise, [0.7 + 0.3 * math.sin(look / 8) for look in range(100)]),
    "dusk from one side": lambda noise: [
        noise.on(garage() * (1 - look / 240 * np.linspace(0, 1, WIDTH)[None, :, None])) for look in range(120)
    ],
    "a lamp that flickers": lambda noise: lit(noise, [0.9 + 0.1 * (look * 7 % 5 / 2 - 1) for look in range(60)]),
    "exposure in steps": lambda noise: lit(noise, ramp(1.1, 1.25, 1.4)),
    "a lamp goes off": lambda noise: lit(noise, ramp(0.15), 5),
    "a lamp goes on": lambda noise: lit(noise, [0.15] * 10 + [1.0] * 20, 5),
    "too bright": lambda noise: lit(noise, ramp(1.8)),
    "to infrared": lambda noise: [noise.on(garage() / 3, 5)] * 10 + [noise.on(infrared(), 8) for _ in range(30)],
    "to infrared, through black, and too bright first": lambda noise: (
        [noise.on(garage() / 3, 5) for _ in range(20)]
        + [noise.on(infrared() * f, 8) for f in (0, 0, 0, 0, 2.5, 2.2, 1.9, 1.6, 1.4, 1.2, 1.1, 1.05)]
        + [noise.on(infrared(), 8) for _ in range(30)]
    ),
    "back to daylight": lambda noise: [noise.on(infrared(), 8)] * 10 + [noise.on(garage()) for _ in range(30)],
    "a black picture in between": lambda noise: [garage()] * 10 + [garage() * 0] + [garage()] * 20,
    "an evenly grey wall": lambda noise: [noise.on(np.full_like(garage(), 120 + look // 2), 4) for look in range(40)],
    "a man who stands there from the beginning": lambda noise: [noise.on(next(walk(1, 110, 1, first=-9)))] * 30,
}

SOMETHING: dict[str, tuple[Frames, int]] = {  # and how many looks after the tenth it may take
    "near": (lambda noise: map(noise.on, walk(40, 150, 10)), 2),
    "slow": (lambda noise: map(noise.on, walk(40, 110, 1)), 12),
    "fast": (lambda noise: map(noise.on, walk(40, 110, 40)), 2),
    "far away": (lambda noise: map(noise.on, walk(40, 30, 5)), 6),
    "in the dark": (lambda noise: (noise.on(p / 6, 8) for p in walk(40, 110, 5)), 6),
    "under clouds": (
        lambda noise: (noise.on(p * (0.8 + 0.2 * math.sin(n / 8))) for n, p in enumerate(walk(40, 80, 5))),
        4,
    ),
    "in infrared": (lambda noise: (noise.on(p, 8) for p in walk(40, 80, 5, scene=infrared())), 4),
    "as a lorry": (
        lambda noise: (
            noise.on(np.where((np.arange(WIDTH) < (look - 9) * 60)[None, :, None], [60, 90, 200], garage()))
            for look in range(20)
        ),
        3,
    ),
    "who makes light": (
        lambda noise: (noise.on(p * (1.0 if n > 12 else 0.08), 4) for n, p in enumerate(walk(60, 150, 8))),
        20,
    ),
    "as all that the camera sees turns for long": (
        lambda noise: (as_picture(np.roll(garage(), -40 * max(0, look - 10), 1)) for look in range(60)),
        45,
    ),
}


@pytest.mark.parametrize("what", NOTHING)
def test_is_no_motion(what: str) -> None:
    assert not any(moments(NOTHING[what](Noise()), EACH))


@pytest.mark.parametrize("what", SOMETHING)
def test_a_man_is_seen(what: str) -> None:
    frames, looks = SOMETHING[what]
    seen = moments(frames(Noise()), EACH)
    assert not any(seen[:10])
    assert any(seen[10 : 10 + looks])


def test_what_a_camera_does_after_its_light_changed_is_no_motion() -> None:
    """A glare that shrinks: within a second of the switch it belongs to that, later it is something that moves."""

    def glare(looks: int) -> list[Image]:
        frames = [garage().copy() for _ in range(looks)]
        for number, frame in enumerate(frames):
            frame[40:200, 300 : 300 + 20 * (looks - number)] = 255
        return frames

    dark = [as_picture(garage() * 0.1)] * 20
    assert not any(moments([*dark, *glare(8), *[garage()] * 20], EACH))
    assert any(moments([*dark, *[garage()] * 30, *glare(8)], EACH))


def test_a_real_clip_moves_and_its_still_does_not() -> None:
    assert all(moments(man()[:60], EACH, 1 / 30)[1:])
    assert not any(moments([man()[0]] * 20, EACH))


def test_motion_ends_after_the_last_change_and_begins_anew() -> None:
    frames = [*walk(45, 80, 10, first=5), *[garage()] * 80, *walk(30, 80, 10, first=0)]
    seen = moments(frames, SHORT)
    turns = [look for look in range(1, len(seen)) if seen[look] != seen[look - 1]]
    assert [seen[look] for look in turns[:3]] == [True, False, True]
    assert turns[0] <= 6
    assert 45 <= turns[1] < 120  # the background forgets whom it has learned
    assert 125 <= turns[2] <= 127


def test_whoever_stands_still_becomes_background() -> None:
    comes = list(walk(30, 110, 8, first=5))
    seen = moments([*comes, *[comes[-1]] * 150], SHORT)
    assert any(seen[5:30])
    assert not any(seen[-30:])


def test_hold_bridges_pauses() -> None:
    frames = [*walk(10, 80, 10, first=5), *[garage()] * 200]
    ends = [moments(frames, MotionSettings(every_s=0, hold_s=hold)).index(False, 15) for hold in (0.5, 3.0)]
    assert ends[1] - ends[0] == pytest.approx(25, abs=1)


def test_between_two_looks_the_last_one_counts() -> None:
    looking = MotionDetector(MotionSettings(every_s=1.0, hold_s=0), "bgr24")
    looking.look(garage(), 0.0)
    frame = next(walk(1, 150, 200, first=-1))
    assert [looking.look(frame, at).moving for at in (0.2, 0.4)] == [False, False]
    assert [looking.look(frame, at).moving for at in (1.0, 1.5, 1.99)] == [True] * 3
    assert not looking.look(garage(), 60.0).moving  # much later nothing is known of before


LEFT = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
RIGHT = ((0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0))
ALL = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))


def test_what_moves_under_a_mask_does_not_matter() -> None:
    crossing = list(walk(70, 80, 9, first=5))
    masked = moments(crossing, MotionSettings(every_s=0, mask=(LEFT,)))
    assert masked.index(True) > 35
    assert moments(crossing, MotionSettings(every_s=0, mask=(RIGHT,))).index(True) <= 6
    assert not any(moments(crossing, MotionSettings(every_s=0, mask=(LEFT, RIGHT))))
    assert not any(moments(crossing, EACH, hidden=(ALL,)))


def test_a_light_is_known_by_what_is_not_hidden() -> None:
    black = garage().copy()
    black[:, : WIDTH * 7 // 10] = 0
    hidden = ((0.0, 0.0), (0.7, 0.0), (0.7, 1.0), (0.0, 1.0))
    noise = Noise()
    clouds = [noise.on(black * (0.7 + 0.3 * math.sin(look / 8))) for look in range(60)]
    assert not any(moments(clouds, EACH, hidden=(hidden,)))


@pytest.mark.parametrize("pixel_format", ["bgr24", "rgb24", "gray8"])
def test_every_pixel_format(pixel_format: str) -> None:
    code = {"rgb24": cv2.COLOR_BGR2RGB, "gray8": cv2.COLOR_BGR2GRAY}.get(pixel_format)
    looking = MotionDetector(EACH, pixel_format)
    areas = []
    for number, picture in enumerate(walk(15, 110, 10)):
        shown = picture if code is None else np.asarray(cv2.cvtColor(picture, code), np.uint8)
        areas.append(looking.look(shown, number * 0.1).area)
    assert areas[9] == 0
    assert 0.002 < areas[14] < 0.1


@pytest.mark.parametrize("size", [(1, 1), (1, 640), (3, 2), (99, 101), (2, 16384), (480, 17), (1080, 1920)])
def test_every_size(size: tuple[int, int]) -> None:
    looking = MotionDetector(MotionSettings(every_s=0, mask=(LEFT,)), "bgr24")
    chance = np.random.default_rng(3)
    for number in range(4):
        motion = looking.look(chance.integers(0, 256, (*size, 3), np.uint8), number * 0.1)
        assert 0 <= motion.area <= 1
    assert looking.look(garage(), 60.0).area == 0  # another size begins anew


def test_the_light_is_fitted_to_what_agrees() -> None:
    chance = np.random.default_rng(2)
    there = chance.uniform(10, 150, 1000).astype(np.float32)
    here = 1.3 * there + 12 + chance.normal(0, 2, 1000).astype(np.float32)
    here[:300] = 240  # a thing that was not there
    gain, offset = light(there, here)
    assert gain == pytest.approx(1.3, abs=0.02)
    assert offset == pytest.approx(12, abs=2)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        ([[[0, 0], [1, 1]]], "motion.mask.0: expected"),
        ([[[0, 0], [0.5, 0.5], [1, 1]]], "motion.mask.0: expected a polygon, its corners lie on one line"),
        ([[[0, 0], [1.5, 0], [1, 1]]], "motion.mask.0.1.0: expected"),
    ],
)
def test_a_mask_that_covers_nothing_is_refused(mask: object, words: str) -> None:
    with pytest.raises(ConfigError, match="cameras.c." + words):
        configured(type="test_pattern", motion={"mask": mask}).check("cameras.c")


def test_motion_is_told_where_it_begins_and_ends_and_with_each_frame(tmp_path: Path) -> None:
    """A clip: nobody, a man who crosses, nobody; then it ends while he crosses again."""
    clip = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (WIDTH, HEIGHT))
    for picture in [*walk(40, 110, 30, first=15), *[garage()] * 80, *walk(20, 110, 20, first=10)]:
        clip.write(picture)
    clip.release()
    camera = {"type": "file", "location": str(tmp_path / "clip.avi"), "loop": False, "slots": 64}
    camera |= {"motion": {"every_s": 0.04, "hold_s": 0.2}}
    rings = tmp_path / "rings"
    rings.mkdir()
    config = {"ring_directory": str(rings), "cameras": {"c": camera}}
    with (
        Standalone("camera_capture", config, tmp_path / "w") as running,
        FrameReader("c", directory=rings, policy="every") as reader,
    ):
        frames: list[tuple[float, Motion | None]] = []
        while (frame := reader.read(10 if not frames else 1)) is not None:
            frames.append((frame.wall_ns / 1e9, frame.motion))
        running.message("edgeml/camera/c/motion", count=4)
        running.stop()
    told = [line["payload"] for line in running.lines if line["topic"] == "edgeml/camera/c/motion"]
    assert [one["moving"] for one in told] == [True, False, True, False]
    assert told[1]["since"] == told[0]["since"] == told[0]["at"] < told[1]["at"]
    assert told[0]["area"] > 0.001
    assert len(frames) > 100
    moving = {at for at, motion in frames if motion is not None and motion.moving}
    for at, motion in frames:
        assert motion is not None
        assert motion.moving == any(
            one["at"] <= at + 1e-6 < other["at"] for one, other in ((told[0], told[1]), (told[2], told[3]))
        )
    assert moving
    health = running.lines[-1]["payload"]
    assert health["counters"]["cameras.c.motions"] == 2
    assert "cameras.c.motion" in health["latency_ms"]


def test_the_health_says_whether_something_moves() -> None:
    told: list[CameraMotion] = []
    health = Health("edgeml.CameraCapture", "1")
    watch = MotionWatch("c", MotionDetector(EACH, "bgr24"), health.scope("cameras.c"), told.append)
    watch.start()
    for number, picture in enumerate(walk(15, 110, 10)):
        watch.tell(watch.look(picture, number * 10**8), number * 10**9)
    assert health.report().gauges == {"cameras.c.moving": 1}
    watch.end(99 * 10**9)
    watch.end(100 * 10**9)
    assert health.report().gauges == {"cameras.c.moving": 0}
    assert [(one.moving, one.at) for one in told] == [(True, 10), (False, 99)]


def test_a_camera_that_is_not_asked_looks_for_none(tmp_path: Path) -> None:
    config = {"ring_directory": str(tmp_path), "cameras": {"c": {"type": "test_pattern", "width": 160, "height": 90}}}
    with (
        Standalone("camera_capture", config, tmp_path / "w") as running,
        FrameReader("c", directory=tmp_path) as reader,
    ):
        frame = reader.read(timeout=10)
        assert frame is not None
        assert frame.motion is None
        running.stop()
    assert not [line for line in running.lines if line["topic"].endswith("/motion")]
    assert "cameras.c.moving" not in running.lines[-1]["payload"]["gauges"]
