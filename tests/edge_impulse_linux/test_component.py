"""A device in Studio: registered, looked through, lost and found again."""

import base64
import json
import time
import uuid
from pathlib import Path

from localdev.simulators.studio import FakeStudio
from studio_support import DEVICE, Frames, Start, colour, connected, finished
from support import eventually


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
        process.configure({**config, "cameras": ["back"]})
        eventually(lambda: studio.connections == 2 and studio.connected, what="a new registration")
        assert studio.hello()["sensors"][0]["name"] == "Camera (320x240)"
