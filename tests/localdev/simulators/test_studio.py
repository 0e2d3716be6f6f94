import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from websockets.sync.client import connect

from forked import popen
from localdev.simulators.studio import FakeStudio
from support import eventually


@pytest.fixture
def studio() -> Iterator[FakeStudio]:
    with FakeStudio() as running:
        yield running


def get(studio: FakeStudio, path: str, key: str = "ei_test") -> tuple[int, object]:
    request = urllib.request.Request(f"http://{studio.host}:4800{path}", headers={"x-api-key": key})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_the_api_answers_the_holder_of_the_key_only(studio: FakeStudio) -> None:
    assert get(studio, "/v1/api/projects") == (200, {"success": True, "projects": [{"id": 42, "name": "fake"}]})
    assert get(studio, "/v1/api/42/devkeys/hmac") == (200, {"success": True, "hmacKey": "f" * 32})
    assert get(studio, "/v1/api/projects", key="other")[0] == 401
    assert get(studio, "/v1/api/43/devkeys/hmac")[0] == 404
    assert get(studio, "/v1/api/42/device/unknown")[0] == 404
    assert [request.path for request in studio.requests][:2] == ["/v1/api/projects", "/v1/api/42/devkeys/hmac"]


def test_a_device_is_welcomed_asked_and_dropped(studio: FakeStudio) -> None:
    with connect(f"ws://{studio.host}:4802") as device:
        device.send(json.dumps({"hello": {"apiKey": "ei_test", "deviceId": "d"}}))
        assert json.loads(device.recv(timeout=5))["hello"] is True
        eventually(lambda: studio.connected)
        assert studio.hello()["deviceId"] == "d"
        studio.sample("Camera", "face", length=100)
        assert json.loads(device.recv(timeout=5))["sample"] == {
            "label": "face",
            "length": 100,
            "path": "/api/training/data",
            "hmacKey": "f" * 32,
            "interval": 0,
            "sensor": "Camera",
        }
        device.send('{"sampleStarted": true}')
        eventually(lambda: studio.heard_keys() == ["hello", "sampleStarted"])
        studio.drop()
    eventually(lambda: not studio.connected)
    with pytest.raises(ConnectionError):
        studio.ask({})


@pytest.mark.parametrize(("key", "refusal", "reason"), [("other", "", "Invalid API key"), ("ei_test", "full", "full")])
def test_a_device_may_be_refused(studio: FakeStudio, key: str, refusal: str, reason: str) -> None:
    studio.refusal = refusal
    with connect(f"ws://{studio.host}:4802") as device:
        device.send(json.dumps({"hello": {"apiKey": key}}))
        assert json.loads(device.recv(timeout=5)) == {"hello": False, "err": reason}
    assert not studio.connected


def test_it_runs_from_the_command_line() -> None:
    with FakeStudio() as reserved:
        host = reserved.host
    process = popen(
        [sys.executable, "-m", "localdev.simulators.studio", "--host", host],
        env={},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == f"Studio on EI_HOST={host}, API key ei_test\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 0
    process.stdout.close()
