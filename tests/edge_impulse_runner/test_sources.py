import json
import threading
import uuid
from pathlib import Path

import numpy as np
import pytest

from edge_impulse_runner.protocol import ModelParameters
from edge_impulse_runner.sources import CameraSource, SensorSource
from edgeml.frames import FrameWriter
from edgeml.health import Health

IMAGE = ModelParameters(
    input_features_count=16, image_input_width=4, image_input_height=4, image_channel_count=3, sensor=3
)
MOTION = ModelParameters(input_features_count=6, axis_count=3, frequency=50.0, interval_ms=20.0, sensor=2)


def test_a_camera_gives_its_newest_frame_and_may_come_late(tmp_path: Path) -> None:
    camera = f"c{uuid.uuid4().hex[:8]}"
    source = CameraSource(camera, tmp_path, IMAGE, "squash")
    assert source.next(0.01) is None
    with FrameWriter(camera, width=4, height=4, directory=tmp_path) as writer:
        for value in (1, 2, 3):
            writer.write(np.full((4, 4, 3), value, dtype=np.uint8))
        window = source.next(2.0)
        assert window is not None
        assert window.features.tolist() == [0x030303] * 16
        assert window.image is not None
        assert window.image.shape == (4, 4, 3)
        assert source.next(0.01) is None
    source.close()


def sensor(axes: list[str] | None = None, stride_s: float = 0.0) -> tuple[SensorSource, Health]:
    health = Health("test", "1")
    return SensorSource(MOTION, axes or [], stride_s, health), health


def windows(source: SensorSource) -> list[list[float]]:
    found = []
    while (window := source.next(0.0)) is not None:
        found.append(window.features.tolist())
    return found


@pytest.mark.parametrize(
    "payloads",
    [
        [b"[1,2,3]", b"[4,5,6]"],
        [b"[1,2,3,4,5,6]"],
        [b"[[1,2,3],[4,5,6]]"],
        [b"1, 2, 3\n", b"4,5,6"],
        [b'["1","2","3"]', b"[4,5,6]"],
    ],
)
def test_samples_in_their_forms(payloads: list[bytes]) -> None:
    source, _ = sensor()
    for payload in payloads:
        source.feed(payload)
    assert windows(source) == [[1, 2, 3, 4, 5, 6]]


def test_fields_of_objects_in_the_models_order() -> None:
    source, _ = sensor(axes=["fields.accX", "fields.accY", "fields.accZ"])
    samples = [{"fields": {"accZ": 3, "accX": 1, "accY": 2, "t": 0}}, {"fields": {"accZ": 6, "accX": 4, "accY": 5}}]
    source.feed(json.dumps(samples[0]).encode())
    source.feed(json.dumps([samples[1]]).encode())
    assert windows(source) == [[1, 2, 3, 4, 5, 6]]


def test_windows_overlap_by_the_stride() -> None:
    source, _ = sensor(stride_s=0.02)
    for value in range(4):
        source.feed(json.dumps([value] * 3).encode())
    assert windows(source) == [[0, 0, 0, 1, 1, 1], [1, 1, 1, 2, 2, 2], [2, 2, 2, 3, 3, 3]]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"hello",
        b"[1,2]",
        b'{"x": 1}',
        b"[1,2,null]",
        b"\xff\xfe",
        b"[1,2,[]]",
        b'["a","b","c"]',
        b"[1,2",
        b"1,nan,2",
    ],
)
def test_what_is_no_sample_is_counted_and_changes_nothing(payload: bytes) -> None:
    source, health = sensor()
    source.feed(b"[1,2,3]")
    source.feed(payload)
    source.feed(b"[4,5,6]")
    assert windows(source) == [[1, 2, 3, 4, 5, 6]]
    assert health.counter("input_rejected") == 1


def test_an_object_without_the_fields_is_counted() -> None:
    source, health = sensor(axes=["x", "y", "z"])
    source.feed(b'{"x": 1, "y": 2}')
    assert health.counter("input_rejected") == 1


def test_samples_that_nobody_takes_are_bounded_whole_and_the_newest_stay() -> None:
    source, health = sensor()
    for value in range(1000):
        source.feed(json.dumps([value, value + 0.25, value + 0.5]).encode())
    found = windows(source)
    assert len(found) == 4
    assert found[-1] == [998, 998.25, 998.5, 999, 999.25, 999.5]
    assert all(window[0] % 1 == 0 for window in found)
    assert health.counter("input_overrun") == 3 * 1000 - 24


@pytest.mark.parametrize("samples", [0, 1, 2, 7, 8, 9])
def test_values_of_four_windows_wait_and_no_more(samples: int) -> None:
    source, health = sensor()
    for value in range(samples):
        source.feed(json.dumps([value] * 3).encode())
    kept = range(max(0, samples - 8), samples)
    assert [window[::3] for window in windows(source)] == [[a, b] for a, b in zip(kept[::2], kept[1::2], strict=False)]
    assert health.counter("input_overrun") == 3 * max(0, samples - 8)


def test_next_waits_for_the_sample_that_completes_a_window() -> None:
    source, _ = sensor()
    source.feed(b"[1,2,3]")
    late = threading.Timer(0.1, source.feed, [b"[4,5,6]"])
    late.start()
    window = source.next(5.0)
    late.join()
    assert window is not None
