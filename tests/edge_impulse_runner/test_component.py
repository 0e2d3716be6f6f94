import base64
import json
import os
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeml.frames import FrameWriter
from support import Standalone, eventually

Launcher = Callable[..., Path]


class Process(Standalone):
    """The runner, and what it said of the device."""

    def topic(self, name: str) -> list[dict[str, Any]]:
        return [line["payload"] for line in list(self.lines) if line["topic"].endswith(name)]

    def results(self) -> list[dict[str, Any]]:
        return self.topic("inference/output")

    def answers(self) -> list[dict[str, Any]]:
        return [payload["result"] for payload in self.topic("command/output")]

    def command(self, *commands: dict[str, Any]) -> None:
        eventually(self.answers, what="a running component")
        (device,) = {line["topic"].split("/")[3] for line in list(self.lines) if "edgeimpulse" in line["topic"]}
        for command in commands:
            self.send(f"/edgeimpulse/device/{device}/command/input", command, channel="iot_core")


Run = Callable[..., Process]


@pytest.fixture
def run(tmp_path: Path, no_leaks: None) -> Iterator[Run]:
    with ExitStack() as stack:

        def start(file: Path | str = "__none__", path: str = "", **configuration: Any) -> Process:
            parameters = {
                "device_name": "My Device",
                "ei_local_model_file": str(file),
                "iotcore_backoff": "0",
                **configuration.pop("Parameters", {}),
            }
            folder = tmp_path / "work" / "edgeml.EdgeImpulseRunner"
            env = {"PATH": f"{path}:{os.environ['PATH']}", "TMPDIR": tempfile.gettempdir()}
            given = {"Parameters": parameters, **configuration}
            return stack.enter_context(Process("edge_impulse_runner", given, folder, env=env))

        yield start


@pytest.fixture
def camera() -> Iterator[str]:
    """A camera's name; its frames, (10, 20, 30) in BGR, come as long as the test runs."""
    name = f"t{uuid.uuid4().hex[:8]}"
    stop = threading.Event()

    def write() -> None:
        with FrameWriter(name, width=64, height=48) as writer:
            while not stop.wait(0.02):
                writer.write(np.full((48, 64, 3), (10, 20, 30), dtype=np.uint8))

    thread = threading.Thread(target=write)
    thread.start()
    yield name
    stop.set()
    thread.join()


def test_camera_to_iot_core_with_image_metrics_and_cache(
    run: Run, launcher: Launcher, camera: str, tmp_path: Path
) -> None:
    record, kept = tmp_path / "record", tmp_path / "kept"
    process = run(
        launcher(width=4, height=4, record=str(record)),
        input={"camera": camera, "max_fps": 50},
        Parameters={
            "publish_inference_base64_image": "yes",
            "enable_cache_to_file": "yes",
            "cache_file_directory": str(kept),
        },
    )
    eventually(lambda: len(process.results()) >= 3, what="results")
    results = process.results()
    first = next(topic for each in process.lines if "/health/" not in (topic := each["topic"]))
    assert first.startswith("/edgeimpulse/device/My_Device")
    assert process.answers()[0]["status"] == "started"
    assert process.topic("model/metrics")[0]["details"]["n"] == 0  # the first comes at once
    assert [result["total_inferences"] for result in results[:3]] == [1, 2, 3]
    assert results[0]["c"] == {"face": 0.9, "background": 0.1}
    assert base64.b64decode(results[0]["image"]).startswith(b"\xff\xd8")
    assert json.loads(record.read_text().splitlines()[0])["head"] == [float(30 << 16 | 20 << 8 | 10)] * 8
    cached = json.loads((kept / f"{results[0]['id']}.json").read_text())
    assert cached == results[0]
    assert (kept / f"{results[0]['id']}.img").read_bytes() == base64.b64decode(results[0]["image"])
    assert process.stop() == 0


def test_many_commands_at_once_and_none_is_lost(run: Run, launcher: Launcher, camera: str) -> None:
    process = run(launcher(kind="box"), input={"camera": camera, "max_fps": 20})
    eventually(process.results, what="results")
    values = [round(0.01 * number, 2) for number in range(1, 61)]
    process.command(*({"cmd": "set_threshold_filter_confidence", "value": value} for value in values))
    eventually(lambda: len(process.answers()) == 61, what="answers")
    assert [answer["confidence_threshold"] for answer in process.answers()[1:]] == values


def test_restart_begins_a_new_life(run: Run, launcher: Launcher, camera: str) -> None:
    process = run(launcher(kind="box"), input={"camera": camera, "max_fps": 50})
    eventually(lambda: len(process.results()) >= 3, what="results")
    process.command({"cmd": "restart"})
    eventually(lambda: len(process.answers()) == 3, what="answer and a new start")
    assert process.answers()[1] == {"restart": "OK"}
    assert process.answers()[2]["status"] == "started"
    at = len(process.results())
    again = eventually(lambda: process.results()[at:], what="results of the new life")
    assert min(result["total_inferences"] for result in again) <= 4


@pytest.mark.parametrize("source", ["topic", "serial_port"])
def test_samples_from_a_topic_or_a_serial_port(run: Run, launcher: Launcher, tmp_path: Path, source: str) -> None:
    record = tmp_path / "record"
    model = launcher(kind="motion", features=6, slice_size=6, frequency=50.0, record=str(record))
    name = {"topic": "edgeml/sensor/arm", "serial_port": "ttyACM0"}[source]
    topic = {"topic": name, "serial_port": "edgeml/serial/ttyACM0/record"}[source]
    process = run(model, input={source: name, "axes": ["x", "y", "z"]})
    process.logged("model runs")

    def answered() -> list[dict[str, Any]]:
        samples: list[dict[str, Any]] = [{"x": 1, "y": 2, "z": 3}, {"x": 4, "y": 5, "z": 6}]
        if source == "serial_port":
            samples = [{"port": name, "at": 0.0, "format": "csv", "record": sample} for sample in samples]
        for sample in samples:
            process.send(topic, sample)
        return process.results()

    eventually(answered, what="a result")  # sent until then: what comes before the subscription is lost
    assert json.loads(record.read_text().splitlines()[0])["head"] == [1, 2, 3, 4, 5, 6]


def test_a_microphone_model_listens_to_arecord(run: Run, launcher: Launcher, tmp_path: Path) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "arecord").write_text("#!/bin/sh\nexec cat /dev/zero\n")
    (folder / "arecord").chmod(0o755)
    process = run(launcher(kind="audio", labels=["noise", "yes"]), path=str(folder), input={"max_fps": 20})
    (first, *_) = eventually(process.results, what="results")
    assert first["c"] == {"noise": 0.9, "yes": 0.1}
    assert (first["inference_count"], first["total_inferences"]) == (1, 1)
    metrics = process.topic("model/metrics")[-1]
    assert metrics["mean_confidence"] is not None


def test_a_changed_configuration_is_taken_over(run: Run, launcher: Launcher, camera: str) -> None:
    process = run(launcher(kind="box"), input={"camera": camera, "max_fps": 20})
    eventually(process.results, what="results")
    changed = json.loads(process.config_file.read_text())
    changed["Parameters"]["ei_local_model_file"] = str(launcher(kind="grid"))
    process.configure(changed)
    eventually(lambda: any("grid" in result for result in process.results()), what="results of the other model")


def test_stop_kills_a_hung_model_in_time(run: Run, launcher: Launcher, camera: str) -> None:
    process = run(launcher(misbehaves="hangs", record=""), input={"camera": camera}, model={"classify_timeout_s": 60.0})
    process.logged("model runs")
    assert process.stop() == 0


def test_a_wrong_value_ends_the_process_and_names_it(run: Run) -> None:
    process = run(input={"max_fps": -1})
    assert process.ended() == 78
    assert "input.max_fps" in process.log
