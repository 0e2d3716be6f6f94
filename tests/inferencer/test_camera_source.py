"""Which frames of a camera a pipeline takes."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeml.frames import FrameWriter, Motion
from edgeml.health import Health
from frame_support import image, small
from inferencer.sources.camera import CameraSamples, CameraSource
from support import eventually

STILL, MOVES = Motion(False, 0.0), Motion(True, 0.1)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[FrameWriter]:
    with small(tmp_path, slots=16) as made:
        yield made


@pytest.fixture
def health() -> Health:
    return Health("edgeml.Inferencer", "1")


def samples(health: Health, directory: Path, **settings: Any) -> CameraSamples:
    return CameraSamples(CameraSource(camera="cam", policy="every", **settings), directory, health, "pipelines.p")


def taken(source: CameraSamples, writer: FrameWriter, motions: list[Motion | None]) -> list[int]:
    """The ids of those of these frames that were taken."""
    found = []
    for motion in motions:
        writer.write(image(1), motion=motion)
        while (sample := source.next(0.0)) is not None:
            found.append(sample.source.frame_id)
    return found


def test_frames_without_motion_are_left_while_nothing_moves(
    health: Health, tmp_path: Path, writer: FrameWriter
) -> None:
    source = samples(health, tmp_path, when="motion", idle_every_s=0)
    assert taken(source, writer, [STILL, STILL, MOVES, MOVES, STILL, MOVES, STILL]) == [3, 4, 6]
    assert health.report().gauges["pipelines.p.frames_still"] == 4


def test_the_default_takes_every_frame(health: Health, tmp_path: Path, writer: FrameWriter) -> None:
    source = samples(health, tmp_path)
    assert taken(source, writer, [STILL, MOVES, None, STILL]) == [1, 2, 3, 4]
    assert "pipelines.p.frames_still" not in health.report().gauges


def test_a_look_now_and_then_even_when_nothing_moves(health: Health, tmp_path: Path, writer: FrameWriter) -> None:
    source = samples(health, tmp_path, when="motion", idle_every_s=60)
    assert taken(source, writer, [STILL] * 4) == [1]  # who was there before the start
    assert taken(source, writer, [MOVES, STILL]) == [5]
    often = samples(health, tmp_path, when="motion", idle_every_s=0.05)
    assert taken(often, writer, [STILL] * 2) == [1]
    eventually(lambda: taken(often, writer, [STILL]), what="the next look")


def test_a_camera_that_does_not_look_is_taken_as_ever_and_told_of(
    health: Health, tmp_path: Path, writer: FrameWriter
) -> None:
    """As one of version 1.0 does, or one without `motion` in its configuration."""
    source = samples(health, tmp_path, when="motion", idle_every_s=0)
    assert taken(source, writer, [None, None]) == [1, 2]
    assert "does not look for motion" in health.report().notes["pipelines.p.motion"]
    assert taken(source, writer, [STILL, None, STILL]) == [4]
    assert health.report().notes == {}


def test_a_camera_at_rest_neither_spins_nor_holds_a_pipeline(
    health: Health, tmp_path: Path, writer: FrameWriter
) -> None:
    source = samples(health, tmp_path, when="motion", idle_every_s=0)
    for _ in range(5):
        writer.write(image(1), motion=STILL)
    began, busy = time.monotonic(), time.thread_time()
    assert source.next(0.2) is None
    assert 0.15 < time.monotonic() - began < 5
    assert time.thread_time() - busy < 0.1
