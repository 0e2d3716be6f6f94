"""Edge Impulse twice: a Linux model (.eim) on the camera's frames, and a microcontroller on a serial line."""

import json
import os
import time
from pathlib import Path
from typing import Any

from localdev.demo.stage import Configuration, Evidence, Stage
from localdev.demo.stages.faces import CAMERA
from localdev.simulators.eim import Options, write_launcher
from localdev.simulators.mcu import Mcu, detections

MAX_FPS = 5
COMMAND = {"cmd": "get_model_info"}
COMMAND_EVERY_S = 2.0


class EdgeImpulse(Stage):
    """What both share: results and answers on the topics of one device, heard by the independent MQTT client."""

    device: str

    def begin(self) -> None:
        self._results: list[dict[str, Any]] = []
        self._answers: list[dict[str, Any]] = []
        self._prefix, self._commanded, self._commanded_at = "", 0, 0.0
        self.world.iot.hear("/edgeimpulse/device/+/inference/output", self._result)
        self.world.iot.hear("/edgeimpulse/device/+/command/output", self._answer)

    def _result(self, topic: str, payload: bytes) -> None:
        if topic.split("/")[3].startswith(self.device):
            self._prefix = topic.removesuffix("/inference/output")
            self._results.append(json.loads(payload))

    def _answer(self, topic: str, payload: bytes) -> None:
        answer = json.loads(payload)["result"]
        if topic.split("/")[3].startswith(self.device) and "model_info" in answer:
            self._answers.append(answer["model_info"])

    def tick(self) -> None:
        if self._prefix and time.monotonic() - self._commanded_at > COMMAND_EVERY_S:
            self._commanded += 1
            self._commanded_at = time.monotonic()
            self.world.iot.publish(f"{self._prefix}/command/input", json.dumps(COMMAND).encode())

    def progress(self) -> str:
        return f"{len(self._results)} results on IoT Core, {len(self._answers)} commands answered"

    def evidence(self) -> Evidence:
        labels = {box["label"] for result in self._results for box in result.get("box", [])}
        figures = {
            "topic": f"{self._prefix}/inference/output",
            "results": len(self._results),
            "labels": sorted(labels),
            "commands": self._commanded,
            "commands_answered": len(self._answers),
            **self.figures(),
        }
        ok = "face" in labels and bool(self._answers)
        return Evidence(ok, figures, "expected boxes of faces and answers to commands on IoT Core")

    def figures(self) -> dict[str, Any]:
        return {}


class EdgeImpulseRunner(EdgeImpulse):
    name = "edge_impulse_runner"
    title = "a stand-in for an .eim model on the camera's frames"
    needs = ("camera_capture",)
    device = "DemoCamera"

    def prepare(self) -> None:
        self._record = self.world.output / "eim.jsonl"
        options = Options(kind="box", record=str(self._record), tag=f"demo{os.getpid():x}")
        self._model = write_launcher(self.world.output / "faces.eim", options)

    def configuration(self) -> Configuration:
        parameters = {"device_name": self.device, "iotcore_backoff": 2, "ei_local_model_file": str(self._model)}
        source = {"camera": CAMERA, "ring_directory": str(self.world.rings), "max_fps": MAX_FPS}
        return {"edge_impulse_runner": {"Parameters": parameters, "input": source}}

    def figures(self) -> dict[str, Any]:
        """What the model itself wrote down: how many pictures it got, how, and how many of them differ."""
        lines = [json.loads(line) for line in _lines(self._record)]
        return {
            "pictures_classified": len(lines),
            "different_pictures": len({line["crc"] for line in lines}),
            "by_shared_memory": sum(line["shm"] for line in lines),
        }


class SerialScraper(EdgeImpulse):
    name = "serial_scraper"
    title = "a stand-in for a microcontroller on a pseudo-terminal"
    device = "DemoBoard"

    def prepare(self) -> None:
        self._port = self.world.output / "ttyMCU"
        self._records = 0
        self._board = Mcu(self._port, detections(), interval_s=0.2)

    def configuration(self) -> Configuration:
        parameters = {"device_name": self.device, "iotcore_backoff": 2}
        return {"serial_scraper": {"Parameters": parameters, "ports": {"board": {"device": str(self._port)}}}}

    def begin(self) -> None:
        super().begin()
        self.world.hear("edgeml/serial/board/record", self._record)

    def _record(self, topic: str, payload: bytes) -> None:
        self._records += 1

    def figures(self) -> dict[str, Any]:
        return {"records": self._records}

    def end(self) -> None:
        self._board.close()


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []
