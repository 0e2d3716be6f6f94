"""The device in a Studio: the API key from the core or Secrets Manager, an image from a camera's frame ring."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeml.frames import FrameWriter
from integration.conftest import Start
from localdev.cloud import LocalCloud
from localdev.simulators.studio import FakeStudio
from support import eventually

SECRET = "EI_API_KEY"


@pytest.fixture
def rings(tmp_path: Path) -> Iterator[Path]:
    """A folder with the ring of the camera `front`, which sees black."""
    folder, stop = tmp_path / "rings", threading.Event()
    folder.mkdir()

    def write() -> None:
        with FrameWriter("front", directory=folder, width=64, height=48) as writer:
            while not stop.wait(0.05):
                writer.write(np.zeros((48, 64, 3), dtype=np.uint8))

    thread = threading.Thread(target=write)
    thread.start()
    yield folder
    stop.set()
    thread.join()


@pytest.mark.parametrize("profile", ["java", "lite"])
def test_studio_samples_an_image(profile: str, start: Start, cloud: LocalCloud, rings: Path) -> None:
    secret = json.dumps({"ei_api_key": "ei_test"})
    if profile == "lite":
        cloud.aws.client("secretsmanager").create_secret(Name=SECRET, SecretString=secret)
    with FakeStudio() as studio:
        component = {"cameras": ["front"], "ring_directory": str(rings), "device_id": "door-1"}
        env = {**cloud.environment(), "EI_HOST": studio.host}
        secrets = {SECRET: secret} if profile == "java" else None
        with start({"edge_impulse_linux": component}, env=env, secrets=secrets, profile=profile) as core:
            if profile == "java":  # the key is there only now: the component goes on asking
                core.deploy(merge={"aws.greengrass.SecretManager": "2.0.0"})
            eventually(lambda: studio.connected and "door-1" in studio.devices, 20, "a registered device")
            studio.sample("Camera (64x48)", "night")
            eventually(lambda: studio.uploads, what="an upload")
            assert core.state("edgeml.EdgeImpulseLinux") == "RUNNING"
        eventually(lambda: not studio.connected, what="a closed connection")
        (upload,) = studio.uploads
        assert upload.label == "night"
        assert upload.content.startswith(b"\xff\xd8")
