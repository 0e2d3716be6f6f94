import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import pytest

from edge_impulse_linux.config import Sensor
from edge_impulse_linux.identity import Identity
from edge_impulse_linux.ingestion import Ingestion
from edge_impulse_linux.sampling import Request, Sampler
from edge_impulse_linux.sources import FRESH_S, Camera, Feed
from edgeml.errors import SourceError
from edgeml.frames import FrameWriter
from edgeml.health import Health


def decoded(jpeg: bytes) -> Any:
    return cv2.imdecode(np.frombuffer(jpeg, dtype=np.uint8), cv2.IMREAD_COLOR)


@pytest.mark.parametrize(
    ("pixel_format", "pixel", "seen"),
    [("bgr24", (0, 0, 250), (0, 0, 250)), ("rgb24", (0, 0, 250), (250, 0, 0)), ("gray8", 120, (120, 120, 120))],
)
def test_colours_are_right_whatever_the_ring_holds(
    tmp_path: Path, pixel_format: Any, pixel: Any, seen: tuple[int, ...]
) -> None:
    shape = (48, 64) if pixel_format == "gray8" else (48, 64, 3)
    with FrameWriter("c", directory=tmp_path, width=64, height=48, pixel_format=pixel_format) as writer:
        writer.write(np.full(shape, pixel, dtype=np.uint8))
        image = decoded(Camera("c", tmp_path, alone=True).jpeg(quality=95))
    assert np.abs(image.mean(axis=(0, 1)) - seen).max() < 8


def test_a_live_view_is_scaled_down_and_never_up(tmp_path: Path) -> None:
    with FrameWriter("c", directory=tmp_path, width=64, height=48) as writer:
        writer.write(np.zeros((48, 64, 3), dtype=np.uint8))
        camera = Camera("c", tmp_path, alone=True)
        assert decoded(camera.jpeg(quality=50, max_height=24)).shape == (24, 32, 3)
        assert decoded(camera.jpeg(quality=50, max_height=100)).shape == (48, 64, 3)


@pytest.mark.parametrize("pixel_format", ["bgr24", "rgb24", "gray8"])
@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 7), (7, 1), (3, 5), (854, 480)])
def test_frames_of_any_size_are_pictures(tmp_path: Path, pixel_format: Any, width: int, height: int) -> None:
    shape = (height, width) if pixel_format == "gray8" else (height, width, 3)
    with FrameWriter("c", directory=tmp_path, width=width, height=height, pixel_format=pixel_format) as writer:
        writer.write(np.full(shape, 9, dtype=np.uint8))
        camera = Camera("c", tmp_path, alone=True)
        assert decoded(camera.jpeg(quality=1)).shape[:2] == (height, width)
        assert decoded(camera.jpeg(quality=100, max_height=2)).shape[0] == min(height, 2)


def test_a_picture_that_cannot_be_encoded_is_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.Image.Image.save", Mock(side_effect=OSError("encoder error -2")))
    with FrameWriter("c", directory=tmp_path, width=64, height=48) as writer:
        writer.write(np.zeros((48, 64, 3), dtype=np.uint8))
        with pytest.raises(SourceError, match="64x48 bgr24 cannot be encoded: encoder error -2"):
            Camera("c", tmp_path, alone=True).jpeg(quality=50)


def test_opencv_is_not_needed() -> None:
    code = "import sys, edge_impulse_linux.component; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env={}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "cv2" not in done.stdout.split()


def test_an_old_frame_is_not_what_the_camera_sees_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_impulse_linux.sources.FRAME_TIMEOUT_S", 0.1)
    old = time.monotonic_ns() - int((FRESH_S + 1) * 1e9)
    with FrameWriter("c", directory=tmp_path, width=64, height=48) as writer:
        writer.write(np.zeros((48, 64, 3), dtype=np.uint8), captured_ns=old)
        with pytest.raises(SourceError, match="camera c: no new frame"):
            Camera("c", tmp_path, alone=True).jpeg(quality=50)


def test_a_camera_that_is_not_there_is_not_described(tmp_path: Path) -> None:
    assert Camera("c", tmp_path, alone=True).describe(0) is None


def feed(**config: Any) -> tuple[Feed, Health]:
    health = Health("test", "1")
    return Feed("s", Sensor(topic="t", **config), health), health


def test_samples_before_the_request_are_not_part_of_it() -> None:
    source, _ = feed(axes=["0", "1"])
    source.feed(b"[9, 9]")
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(0.005):
            source.feed(b"[1, 2, 3]")

    writer = threading.Thread(target=write)
    writer.start()
    assert source.collect(3, 5, threading.Event()) == [[1, 2]] * 3
    stop.set()
    writer.join()


def test_samples_that_do_not_come_are_an_error_that_helps() -> None:
    source, _ = feed(axes=["x"], frequency_hz=50.0)
    with pytest.raises(SourceError, match=r"0 samples in 0\.1 s, 5 were wanted; is frequency_hz 50 right"):
        source.collect(5, 0.1, threading.Event())


def test_an_interrupted_sample_ends_at_once() -> None:
    source, _ = feed(axes=["x"])
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(SourceError, match="interrupted"):
        source.collect(5, 60, cancelled)


@pytest.mark.parametrize("payload", [b"{}", b"nonsense", b'{"x": "word"}', b'{"x": null}', b"[1]", b'{"x": 1e999}'])
def test_messages_that_are_no_samples_are_counted(payload: bytes) -> None:
    source, health = feed(axes=["x"])
    source.feed(payload)
    assert health.counter("sensors.s.rejected") == 1
    assert "sensor s" in (health.report().last_error or "")


@pytest.mark.parametrize(
    ("length_ms", "allowed"),
    [
        (0, True),
        (1, True),
        (9_999, True),
        (10_000, True),
        (10_000.1, False),
        (1e30, False),
        (-1, False),
        (-1e-9, False),
    ],
)
def test_a_sample_is_as_long_as_its_sensor_allows(length_ms: float, allowed: bool) -> None:
    source, health = feed(axes=["x"], frequency_hz=50.0, max_length_s=10)
    ingestion = Ingestion("http://127.0.0.1:9", "k", Identity("02:00:00:00:00:01", "door"))
    sampler, cancelled = Sampler({"s": source}, ingestion, "", health, jpeg_quality=90), threading.Event()
    cancelled.set()
    request = Request(label="x", path="/api/training/data", sensor="s", length=length_ms)
    told: list[dict[str, Any]] = []
    with pytest.raises(SourceError, match="was interrupted" if allowed else "at most 10000 ms a sample"):
        sampler.take(request, told.append, cancelled)
    assert bool(told) == allowed
