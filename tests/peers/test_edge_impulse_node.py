"""Edge Impulse's own runner for Linux (npm edge-impulse-linux) on our stand-in: what it publishes and what we publish.

Needs `edge-impulse-linux-runner` on PATH, or its path in EDGEML_PEER_NODE_RUNNER. It runs offline: the model is a file,
the camera a picture, AWS a server of this test.
"""

import base64
import contextlib
import json
import os
import shutil
import signal
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_impulse_runner import images
from edge_impulse_runner.eim import Eim
from edgeml.edge_impulse.device import Topics
from edgeml.edge_impulse.parameters import Parameters, interpret
from edgeml.edge_impulse.reporter import Reporter
from edgeml.health import Health
from localdev.simulators.eim import Kind, Options, write_launcher
from support import eventually

pytestmark = pytest.mark.peer

RUNNER = os.environ.get("EDGEML_PEER_NODE_RUNNER") or shutil.which("edge-impulse-linux-runner")
TOPICS = Topics("D")


class DataPlane(ThreadingHTTPServer):
    """As much of AWS IoT's HTTPS data plane as the runner uses: it publishes, and asks for a retained command."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.published: list[tuple[str, dict[str, Any]]] = []

    def on(self, topic: str) -> list[dict[str, Any]]:
        return [payload for name, payload in list(self.published) if name == topic]


class _Handler(BaseHTTPRequestHandler):
    server: DataPlane

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        if body:
            self.server.published.append((path.removeprefix("/topics/"), json.loads(body)))
        self._answer(200, {})

    def do_GET(self) -> None:
        self._answer(404, {"message": "ResourceNotFoundException"})

    def _answer(self, status: int, body: dict[str, Any]) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def aws() -> Iterator[DataPlane]:
    with DataPlane() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.jpg"
    cv2.imwrite(str(path), np.full((96, 96, 3), (40, 80, 120), dtype=np.uint8))
    return path


def theirs(launcher: Path, picture: Path, aws: DataPlane, folder: Path, **environment: str) -> dict[str, Any]:
    """The first result that their runner publishes."""
    if RUNNER is None:
        pytest.skip("edge-impulse-linux-runner is not on PATH, and EDGEML_PEER_NODE_RUNNER does not name it")
    files = ["--model-file", str(launcher), "--fake-camera", str(picture)]
    log = folder / "runner.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [RUNNER, *files, "--greengrass", "--preview-host", "127.0.0.1", "--preview-port", "0"],
            cwd=folder,
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(folder),
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{aws.server_port}",
                "AWS_REGION": "us-east-1",
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": "test",
                "EI_INFERENCE_OUTPUT_TOPIC": TOPICS.inference,
                "EI_METRICS_OUTPUT_TOPIC": TOPICS.metrics,
                "EI_COMMAND_INPUT_TOPIC": TOPICS.command_input,
                "EI_COMMAND_OUTPUT_TOPIC": TOPICS.command_output,
                "EI_OUTPUT_BACKOFF_COUNT": "-1",
                "EI_IOTCORE_QOS": "1",
                **environment,
            },
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        eventually(lambda: aws.on(TOPICS.inference) or process.poll() is not None, 30, "a result of their runner")
        assert aws.on(TOPICS.inference), log.read_text()[-2000:]
        return aws.on(TOPICS.inference)[0]
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupt it, so that its model removes its shared memory; then remove what it leaves itself."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.send_signal(signal.SIGINT)
        process.wait(5)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for left in Path("/dev/shm").glob("edge-impulse-cli*"):
        if not any(left.iterdir()):
            left.rmdir()


def ours(launcher: Path, picture: Path, **parameters: Any) -> dict[str, Any]:
    """What we publish for the same picture."""
    sent: list[bytes] = []
    reporter = Reporter(
        interpret(Parameters(iotcore_backoff=0, **parameters)),
        TOPICS,
        lambda topic, payload: sent.append(payload),
        health=Health("test", "1"),
        max_bytes=128 * 1024,
        restart=lambda: None,
    )
    frame = cv2.imread(str(picture))
    assert frame is not None
    with Eim(launcher) as model:
        wanted = model.hello.model_parameters
        image = images.model_input(np.asarray(frame, dtype=np.uint8), "bgr24", wanted, wanted.image_resize_mode)
        answer = model.classify(images.features(image))
    reporter.result(answer.result, answer.timing, info=answer.info, image=lambda: images.jpeg(image))
    found: dict[str, Any] = json.loads(sent[0])
    return found


@pytest.mark.parametrize("kind", ["box", "fomo", "tracking", "grid", "freeform"])
def test_the_payloads_agree_field_by_field(aws: DataPlane, picture: Path, tmp_path: Path, kind: Kind) -> None:
    launcher = write_launcher(tmp_path / "m.eim", Options(kind=kind))
    their, our = theirs(launcher, picture, aws, tmp_path), ours(launcher, picture)
    assert {key: type(value) for key, value in their.items()} == {key: type(our.get(key)) for key in their}
    varying = {"id", "ts"}
    assert {key: our[key] for key in their.keys() - varying} == {key: their[key] for key in their.keys() - varying}
    assert abs(our["ts"] - their["ts"]) < 60_000
    # What theirs leaves out.
    added = {"tracking": {"tracking"}, "grid": {"visual_anomaly_max", "visual_anomaly_mean"}}.get(kind, set())
    assert our.keys() - their.keys() == added
    assert aws.on(TOPICS.command_output)[0]["result"]["status"] == "started"


def test_the_image_in_the_payload_is_the_same_picture(aws: DataPlane, picture: Path, tmp_path: Path) -> None:
    launcher = write_launcher(tmp_path / "m.eim", Options(kind="box"))
    both = (
        theirs(launcher, picture, aws, tmp_path, EI_INCLUDE_BASE64_IMAGE="yes"),
        ours(launcher, picture, publish_inference_base64_image="yes"),
    )
    decoded = [
        cv2.imdecode(np.frombuffer(base64.b64decode(message["image"]), dtype=np.uint8), cv2.IMREAD_COLOR)
        for message in both
    ]
    their, our = (np.asarray(image, dtype=int) for image in decoded)
    assert their.shape == our.shape
    assert np.abs(their - our).max() <= 4
