"""A camera of the machine as FFmpeg reads it, by its own ioctls: a stand-in for a driver answers them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import msgspec
import pytest

from media_support import encoded, level

CAMERA = Path(__file__).parents[1] / "v4l2_camera.c"
COUNT = 12
READ = """
import sys, time, msgspec
from camera_support import configured
from edgeml.errors import SourceError
levels, error, began, late, kept = [], "", time.monotonic(), 0.0, []
try:
    source = configured(
        type="device", location="/dev/null", stall_timeout_s=1, **msgspec.json.decode(sys.argv[1])
    ).open()
    source.packets = kept.append
    source.open()
    while source.grab():
        image = source.retrieve()
        levels.append([*image.shape, round(float(image.mean()) / 20) * 20])
        late = max(late, time.monotonic() - source.captured_ns / 1e9)
except SourceError as told:
    error = str(told)
source.close()
print(msgspec.json.encode([levels, error, time.monotonic() - began, late, len(kept)]).decode())
"""
KEEP = """
import msgspec
from camera_capture.kinds import device
from edgeml.errors import SourceError
device.MAX_WAITING = 0  # not the newest alone
kept, options = [], {"fflags": "+4", "input_format": "mjpeg"}
reader = device.DeviceReader(
    "/dev/null", shown="x", limit_s=1, options=options, container_format="video4linux2,v4l2", packets=kept.append
).open()
try:
    while reader.read():
        pass
except SourceError:
    reader.close()
print(msgspec.json.encode([(len(bytes(one)), one.is_keyframe, one.pts is not None) for one in kept]).decode())
"""


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Reads from a camera of that format in a process of its own."""
    compiler = shutil.which("cc")
    if compiler is None or not Path("/usr/include/linux/videodev2.h").exists():
        pytest.skip("no C compiler, or no headers of the kernel")
    folder = tmp_path_factory.mktemp("v4l2")
    library = folder / "camera.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, CAMERA, "-ldl"], check=True, timeout=60)
    for codec, name in (("libx264", "h264"), ("mjpeg", "mjpeg")):
        encoded(folder / f"a.{name}", codec, count=COUNT, size=(320, 240))
        with av.open(str(folder / f"a.{name}")) as made:
            for number, packet in enumerate(packet for packet in made.demux() if packet.size):
                (folder / f"{name}-{number}").write_bytes(bytes(packet))

    def read(formats: str, frames: str, script: str = READ, **settings: Any) -> Any:
        camera = {"CAMERA_FORMATS": formats, "CAMERA_FRAMES": str(folder / frames), "LD_PRELOAD": str(library)}
        command = [sys.executable, "-c", script, msgspec.json.encode(settings).decode()]
        done = subprocess.run(command, env=os.environ | camera, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr.decode()
        return msgspec.json.decode(done.stdout.splitlines()[-1])

    return read


def test_h264_of_a_device_is_decoded_and_its_silence_ends(camera: Any) -> None:
    levels, error, seconds, late, kept = camera("YUYV H264", "h264-%d", input_format="H264", width=640, height=480)
    assert levels == [[240, 320, 3, level(number)] for number in range(len(levels))]
    assert len(levels) >= COUNT - 4  # the rest is still in its decoder
    assert error == "/dev/null: no video for 0.9 s"
    assert seconds < 10
    assert late < 2
    assert kept >= COUNT - 1


def test_of_pictures_the_newest_is_taken(camera: Any) -> None:
    levels, error, _, _, kept = camera("MJPG", "mjpeg-%d", width=320, height=240)
    assert levels[-1] == [240, 320, 3, level(COUNT - 1)]
    assert kept == 0
    assert "no video" in error


def test_packets_are_there_when_their_device_is_not(camera: Any) -> None:
    kept = camera("MJPG", "mjpeg-%d", KEEP)
    assert len(kept) == COUNT
    assert all(size > 100 and is_keyframe and is_timed for size, is_keyframe, is_timed in kept)


def test_a_device_that_never_gives_anything_is_left_in_time(camera: Any) -> None:
    levels, error, seconds, _, _ = camera("MJPG", "none-%d", input_format="MJPG")
    assert (levels, seconds < 10) == ([], True)
    assert error.startswith("/dev/null: ")
