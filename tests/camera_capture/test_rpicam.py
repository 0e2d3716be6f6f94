"""The camera of a Raspberry Pi, with a stand-in for rpicam-vid that writes what the real one does."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from camera_capture.attempt import shaped
from camera_support import configured, source_of
from edgeml.errors import ConfigError, SourceError
from edgeml.frames import FrameReader
from support import Standalone, eventually, runs

WIDTH, HEIGHT = 128, 72
SAID = (
    f"[1:2] INFO Camera camera.cpp:1183 configuring streams: (0) {WIDTH}x{HEIGHT}-YUV420/sYCC (1) 2304x1296-BGGR_PISP"
)


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    path = tmp_path / "bin" / "rpicam-vid"
    path.parent.mkdir()
    monkeypatch.setenv("PATH", f"{path.parent}{os.pathsep}{os.environ['PATH']}")
    yield path


def script(tool: Path, body: str, said: str = SAID) -> None:
    """Frames are what `body` writes to its standard output."""
    tool.write_text(
        f'#!/bin/sh\necho $$ >> {tool.parent}/pids\necho "$@" > {tool.parent}/words\necho "{said}" >&2\n{body}\n'
    )
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)


def scene() -> NDArray[np.uint8]:
    """Every brightness and colour, black and white among them, without edges that half the colours could not show."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    planes = [x * 255 / (WIDTH - 1), y * 255 / (HEIGHT - 1), 255 - x * 255 / (WIDTH - 1)]
    return np.stack(planes, axis=2).astype(np.uint8)


def yuv420(picture: NDArray[np.uint8]) -> bytes:
    """As a JPEG holds it: BT.601, full range."""
    blue, green, red = (picture[:, :, channel].astype(float) for channel in range(3))
    bright = 0.299 * red + 0.587 * green + 0.114 * blue
    colours = (128 + 0.5 * (blue - bright) / (1 - 0.114), 128 + 0.5 * (red - bright) / (1 - 0.299))
    small = (colour.reshape(HEIGHT // 2, 2, WIDTH // 2, 2).mean(axis=(1, 3)) for colour in colours)
    return b"".join(np.rint(plane).clip(0, 255).astype(np.uint8).tobytes() for plane in (bright, *small))


def opened(**options: Any) -> Any:
    return source_of(type="rpicam", width=WIDTH, height=HEIGHT, **options)


@pytest.mark.parametrize("pixel_format", ["bgr24", "rgb24", "gray8"])
def test_frames_are_what_the_camera_sees(tool: Path, tmp_path: Path, pixel_format: str) -> None:
    (tmp_path / "frames").write_bytes(yuv420(scene()) + yuv420(255 - scene()))
    script(tool, f"cat {tmp_path}/frames; exec sleep 100")
    source = opened(pixel_format=pixel_format)
    camera = configured(type="rpicam", width=WIDTH, height=HEIGHT, pixel_format=pixel_format)
    try:
        for expected in (scene(), 255 - scene()):
            assert source.grab()
            found = shaped(source.retrieve(), camera)
            difference = cv2.absdiff(found, shaped(expected, camera))
            assert difference.max() <= 8
            assert difference.mean() < 2
    finally:
        source.close()


def test_it_is_asked_for_raw_frames_of_the_configured_size_and_rate(tool: Path) -> None:
    script(tool, "exec sleep 100")
    source = opened(location=1, fps=15, options="--rotation 180 --tuning-file 'my file.json'")
    try:
        words = eventually(lambda: (tool.parent / "words").exists() and (tool.parent / "words").read_text())
    finally:
        source.close()
    assert words == (
        "--camera 1 --width 128 --height 72 --framerate 15 --timeout 0 --nopreview --codec yuv420 --flush -o - "
        "--rotation 180 --tuning-file my file.json\n"
    )


def test_another_size_than_the_configured_one_is_no_torn_picture_but_an_error(tool: Path) -> None:
    script(tool, "cat /dev/zero", SAID.replace("128x72", "1536x864"))
    source = opened()
    try:
        with pytest.raises(SourceError, match="gives 1536x864 instead of 128x72"):
            source.grab()
    finally:
        source.close()


@pytest.mark.parametrize(
    ("body", "said", "words"),
    [
        (
            "exit 255",
            "ERROR: *** no cameras available ***",
            r"ended: ERROR: \*\*\* no cameras available.*exit code 255",
        ),
        ("exit 255", "ERROR: *** unrecognised option '--x' ***", "unrecognised option"),
        ("printf abc", SAID, "rpicam-vid ended: it reached its end"),
    ],
)
def test_why_it_ended_is_said(tool: Path, body: str, said: str, words: str) -> None:
    script(tool, body, said)
    source = opened()
    try:
        with pytest.raises(SourceError, match=words):
            source.grab()
    finally:
        source.close()


def test_a_missing_program_names_its_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceError, match=r"rpicam-vid is not installed .*rpicam-apps"):
        opened()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"width": 854}, "width: expected a multiple of 64, as rpicam needs it, found 854"),
        ({"height": 481}, "height: expected a multiple of 2"),
        ({"height": 0}, "height: expected a multiple of 2"),
        ({"location": "/dev/video0"}, "location: expected the number of a camera, found '/dev/video0'"),
    ],
)
def test_what_can_never_work_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        configured(type="rpicam", **settings).check("cameras.c")


def test_options_that_no_shell_would_take_are_told(tool: Path) -> None:
    script(tool, "exit 0")
    with pytest.raises(SourceError, match="options: No closing quotation"):
        opened(options="--roi '")


def test_a_camera_that_stops_is_started_again_and_ends_with_the_component(tool: Path, tmp_path: Path) -> None:
    frame = tmp_path / "frame"
    frame.write_bytes(yuv420(scene()))
    script(
        tool,
        f"[ $(wc -l < {tool.parent}/pids) -gt 1 ] || {{ cat {frame}; echo 'ERROR: *** timed out ***' >&2; exit 1; }}\n"
        f"while cat {frame}; do sleep 0.02; done",
    )
    camera = {"type": "rpicam", "width": WIDTH, "height": HEIGHT, "reconnect_min_s": 0.05}
    config = {"ring_directory": str(tmp_path), "cameras": {"csi": camera}}
    with (
        Standalone("camera_capture", config, tmp_path / "w") as running,
        FrameReader("csi", directory=tmp_path) as reader,
    ):
        running.message("edgeml/camera/csi/frame", count=5)
        assert "rpicam-vid ended: ERROR: *** timed out *** (exit code 1)" in running.log
        seen = reader.read(timeout=5)
        assert seen is not None
        assert cv2.absdiff(seen.image, scene()).max() <= 8
        assert running.stop() == 0
    pids = [int(pid) for pid in (tool.parent / "pids").read_text().split()]
    assert len(pids) == 2
    eventually(lambda: not any(runs(pid) for pid in pids), 5, "the end of rpicam-vid")
