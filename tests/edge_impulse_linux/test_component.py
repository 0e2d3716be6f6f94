import base64
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeml.frames import FrameWriter
from localdev.simulators.studio import FakeStudio
from support import Standalone, eventually

DEVICE = "02:aa:bb:cc:dd:ee"


class Frames:
    """A camera that sees one colour, (10, 20, 200) in BGR, until its block ends."""

    def __init__(self, directory: Path, name: str = "front", *, width: int = 640, height: int = 480) -> None:
        self._writer = FrameWriter(name, directory=directory, width=width, height=height)
        self._image = np.full((height, width, 3), (10, 20, 200), dtype=np.uint8)
        self._stop = threading.Event()

    def __enter__(self) -> "Frames":
        self._thread = threading.Thread(target=self._write)
        self._thread.start()
        return self

    def _write(self) -> None:
        with self._writer as writer:
            while not self._stop.wait(0.02):
                writer.write(self._image)

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def studio() -> Iterator[FakeStudio]:
    with FakeStudio() as running:
        yield running


@pytest.fixture
def rings(tmp_path: Path) -> Path:
    folder = tmp_path / "rings"
    folder.mkdir()
    return folder


Start = Callable[..., Standalone]


@pytest.fixture
def start(tmp_path: Path, studio: FakeStudio, rings: Path) -> Iterator[Start]:
    with ExitStack() as stack:

        def run(*, key: str = "ei_test", **config: Any) -> Standalone:
            settings = {
                "Parameters": {"device_name": "Bob's Door", "launch": "linux"},
                "cameras": ["front"],
                "ring_directory": str(rings),
                "device_id": DEVICE,
                "secrets": {"EI_API_KEY": json.dumps({"ei_api_key": key})},
                **config,
            }
            process = Standalone("edge_impulse_linux", settings, tmp_path / "work", env={"EI_HOST": studio.host})
            return stack.enter_context(process)

        yield run


def connected(studio: FakeStudio) -> None:
    """Welcomed, registered and named."""
    eventually(lambda: studio.connected and DEVICE in studio.devices, what="a registered device")


def finished(studio: FakeStudio, count: int) -> None:
    eventually(lambda: studio.heard_keys().count("sampleFinished") == count, what=f"sample {count}")


def colour(jpeg: bytes) -> tuple[tuple[int, ...], list[int]]:
    """Size (height, width) and mean BGR."""
    image = cv2.imdecode(np.frombuffer(jpeg, dtype=np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return image.shape[:2], [round(value / 10) * 10 for value in image.mean(axis=(0, 1))]


def test_connect_once_sample_some_images_disconnect(studio: FakeStudio, rings: Path, start: Start) -> None:
    with Frames(rings):
        process = start()
        connected(studio)
        for number in range(3):
            studio.sample("Camera (640x480)", f"face {number}")
            finished(studio, number + 1)
        assert process.stop() == 0
    eventually(lambda: not studio.connected, what="a closed connection")
    assert studio.connections == 1
    assert studio.heard_keys() == ["hello", *["sampleStarted", "sample", "sampleUploading", "sampleFinished"] * 3]
    assert studio.hello() == {
        "apiKey": "ei_test",
        "deviceId": DEVICE,
        "deviceType": "EDGE_IMPULSE_LINUX",
        "connection": "ip",
        "sensors": [{"name": "Camera (640x480)", "frequencies": [], "maxSampleLengthS": 60000}],
        "supportsSnapshotStreaming": True,
        "version": 4,
        "mode": "ingestion",
    }
    assert [upload.label for upload in studio.uploads] == ["face 0", "face 1", "face 2"]
    upload = studio.uploads[0]
    assert (upload.path, upload.file_name) == ("/api/training/files", "face 0.jpg")
    assert colour(upload.content) == ((480, 640), [10, 20, 200])
    assert upload.headers["x-disallow-duplicates"] == upload.headers["x-add-date-id"] == "1"
    assert upload.headers["x-device-type"] == "EDGE_IMPULSE_LINUX"
    assert json.loads(upload.headers["x-metadata"]) == {"camera": "front"}
    rest = [(request.method, request.path) for request in studio.requests if request.path.startswith("/v1/")]
    assert rest[:4] == [
        ("GET", "/v1/api/projects"),
        ("GET", "/v1/api/42/devkeys/hmac"),
        ("POST", "/v1/api/42/devices/create"),
        ("GET", "/v1/api/42/device/02%3Aaa%3Abb%3Acc%3Add%3Aee"),
    ]
    created = studio.requests[2].json()
    assert created == {"deviceId": DEVICE, "deviceType": "EDGE_IMPULSE_LINUX", "ifNotExists": True}
    assert "ei_test" not in process.log


def test_a_new_device_gets_its_name_and_a_renamed_one_keeps_it(studio: FakeStudio, rings: Path, start: Start) -> None:
    with Frames(rings):
        start()
        eventually(lambda: studio.devices.get(DEVICE, "").startswith("Bobs_Door"), what="a name")
        studio.devices[DEVICE] = "By hand"
        studio.drop()
        eventually(lambda: studio.connections == 2 and studio.connected, what="a second connection")
        eventually(lambda: sum(request.path.endswith("create") for request in studio.requests) == 2)
        assert studio.devices == {DEVICE: "By hand"}


def test_the_live_view_runs_from_start_to_stop_beside_sampling(studio: FakeStudio, rings: Path, start: Start) -> None:
    with Frames(rings, width=1280, height=720):
        start(snapshot_fps=30)
        connected(studio)
        studio.ask({"startSnapshot": True, "resolution": "low"})
        frames = eventually(lambda: [message for message in studio.heard if "snapshotFrame" in message][2:])
        studio.sample("Camera (1280x720)", "during")
        eventually(lambda: studio.uploads, what="an upload")
        studio.ask({"stopSnapshot": True})
        eventually(lambda: "snapshotStopped" in studio.heard_keys(), what="the end of the live view")
        seen = len(studio.heard)
        time.sleep(0.2)
        assert len(studio.heard) == seen
    assert colour(base64.b64decode(frames[0]["snapshotFrame"])) == ((240, 427), [10, 20, 200])
    assert frames[0]["fileName"].endswith(".jpg")
    assert studio.heard_keys()[:2] == ["hello", "snapshotStarted"]


def test_sensor_values_are_signed_and_uploaded(studio: FakeStudio, start: Start) -> None:
    sensor = {
        "serial_port": "mcu",
        "axes": ["record.x", "record.y"],
        "units": ["m/s2"],
        "frequency_hz": "50",
        "max_length_s": 10,
    }
    process = start(cameras=[], sensors={"Accelerometer": sensor})
    connected(studio)
    assert studio.hello()["sensors"] == [{"name": "Accelerometer", "frequencies": [50.0], "maxSampleLengthS": 10}]
    assert studio.hello()["supportsSnapshotStreaming"] is False
    studio.sample("Accelerometer", "wave", length=100, interval=20, path="/api/testing/data")
    eventually(lambda: "sample" in studio.heard_keys(), what="the start")
    numbers = iter(range(1000))

    def uploaded() -> bool:
        number = next(numbers)
        process.send("edgeml/serial/mcu/record", {"port": "mcu", "at": 1.0, "record": {"x": number, "y": "0.5"}})
        process.send("edgeml/serial/mcu/record", {"port": "mcu", "record": {"noise": 1}})
        return bool(studio.uploads)

    eventually(uploaded, what="an upload")
    (upload,) = studio.uploads
    assert (upload.path, upload.label, upload.file_name) == ("/api/testing/data", "wave", "wave.json")
    assert upload.content["protected"]["alg"] == "HS256"
    payload = upload.content["payload"]
    first = payload["values"][0][0]
    assert payload == {
        "device_name": DEVICE,
        "device_type": "EDGE_IMPULSE_LINUX",
        "interval_ms": 20.0,
        "sensors": [{"name": "x", "units": "m/s2"}, {"name": "y", "units": "N/A"}],
        "values": [[first + step, 0.5] for step in range(5)],
    }
    eventually(lambda: studio.heard_keys()[-1] == "sampleFinished", what="the end")


@pytest.mark.parametrize(
    ("sensor", "changes", "words"),
    [
        ("Microphone", {}, "there is no sensor 'Microphone', but Camera (640x480)"),
        ("Camera (640x480)", {"path": "/../../v1/api"}, "is not one for samples"),
        ("Camera (640x480)", {"path": None}, "request not understood"),
    ],
)
def test_a_request_that_cannot_be_served_is_answered_and_the_connection_stays(
    studio: FakeStudio, rings: Path, start: Start, sensor: str, changes: dict[str, Any], words: str
) -> None:
    with Frames(rings):
        start()
        connected(studio)
        studio.sample(sensor, "x", **changes)
        answer = eventually(lambda: [message for message in studio.heard if message.get("sample") is False])[0]
        assert words in answer["error"]
        studio.sample("Camera (640x480)", "x")
        eventually(lambda: studio.uploads, what="a sample after the refused one")
    assert studio.connections == 1


def test_a_sample_longer_than_the_sensor_allows_is_refused(studio: FakeStudio, start: Start) -> None:
    start(cameras=[], sensors={"Motion": {"serial_port": "mcu", "axes": ["x"], "max_length_s": 10}})
    connected(studio)

    def refused() -> list[str]:
        return [message["error"] for message in studio.heard if message.get("sample") is False]

    for length in (1e30, 10_001, -1):
        before = len(refused())
        studio.sample("Motion", "x", length=length)
        assert "at most 10000 ms" in eventually(lambda: refused()[before:], what="a refusal")[0]  # noqa: B023
    assert studio.connections == 1


def test_an_upload_that_is_refused_is_told(studio: FakeStudio, rings: Path, start: Start) -> None:
    studio.upload_error = "duplicate of sample 7"
    with Frames(rings):
        start()
        connected(studio)
        studio.sample("Camera (640x480)", "x")
        answer = eventually(lambda: [message for message in studio.heard if message.get("sample") is False])[0]
    assert "duplicate of sample 7" in answer["error"]
    assert "sampleFinished" not in studio.heard_keys()


def test_a_lost_connection_is_made_again_with_a_new_hello(studio: FakeStudio, rings: Path, start: Start) -> None:
    with Frames(rings):
        process = start()
        connected(studio)
        studio.drop()
        eventually(lambda: studio.connections == 2 and studio.connected, what="a second connection")
        process.logged("not connected to Studio")
        studio.sample("Camera (640x480)", "after")
        eventually(lambda: studio.uploads, what="a sample over the new connection")


def test_a_wrong_key_is_told_and_tried_again(studio: FakeStudio, start: Start) -> None:
    process = start(key="ei_wrong")
    process.logged("401")
    assert "ei_wrong" not in process.log
    assert studio.connections == 0


def test_a_refused_hello_is_told(studio: FakeStudio, start: Start) -> None:
    studio.refusal = "Device limit reached"
    process = start()
    process.logged("Device limit reached")
    studio.refusal = ""
    eventually(lambda: studio.connected, what="a welcome at a later try")


def test_a_camera_that_appears_later_is_registered(studio: FakeStudio, rings: Path, start: Start) -> None:
    start(cameras=["front", f"t{uuid.uuid4().hex[:6]}"])
    connected(studio)
    assert studio.hello()["sensors"] == []
    with Frames(rings):
        eventually(lambda: studio.connections == 2 and studio.connected, what="a new registration")
        (camera,) = studio.hello()["sensors"]
        assert camera["name"] == "Camera front (640x480)"


def test_a_changed_configuration_registers_anew(studio: FakeStudio, rings: Path, start: Start) -> None:
    with Frames(rings), Frames(rings, "back", width=320, height=240):
        process = start()
        connected(studio)
        config = json.loads(process.config_file.read_text())
        process.config_file.write_text(json.dumps({**config, "cameras": ["back"]}))
        eventually(lambda: studio.connections == 2 and studio.connected, what="a new registration")
        assert studio.hello()["sensors"][0]["name"] == "Camera (320x240)"


@pytest.mark.parametrize(
    ("sensor", "words"),
    [
        ({"axes": ["x"]}, "sensors.a: set either topic or serial_port"),
        ({"topic": "t", "serial_port": "p", "axes": ["x"]}, "sensors.a: set either"),
        ({"topic": "t"}, "sensors.a.axes"),
    ],
)
def test_a_wrong_sensor_names_its_place(start: Start, sensor: dict[str, Any], words: str) -> None:
    process = start(sensors={"a": sensor})
    assert process.ended() == 78
    assert words in process.log
