"""Samples that Studio asks for: of sensors, signed; those that cannot be had are refused in words."""

from pathlib import Path
from typing import Any

import pytest

from localdev.simulators.studio import FakeStudio
from studio_support import DEVICE, Frames, Start, connected
from support import eventually


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
