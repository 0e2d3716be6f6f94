"""The runner deployed with a peer's configuration: camera to IoT Core, commands and answers, seen by an MQTT client."""

import json
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from integration.conftest import Start
from localdev.cloud import LocalCloud
from localdev.mqtt_end import let_go
from localdev.simulators.eim import Options, write_launcher
from support import eventually


class Observer:
    """An independent MQTT client: every message below /edgeimpulse/, by the last two levels of its topic."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.messages: queue.Queue[tuple[str, bytes]] = queue.Queue()
        self.seen: dict[str, list[dict[str, Any]]] = {}
        self.prefix = ""
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self.client.on_message = lambda client, data, message: self.messages.put(
            (message.topic, bytes(message.payload))
        )
        self.client.connect(*address)
        self.client.subscribe("/edgeimpulse/device/+/+/output", qos=1)
        self.client.subscribe("/edgeimpulse/device/+/model/metrics", qos=1)
        self.client.loop_start()

    def all(self, kind: str) -> list[dict[str, Any]]:
        while not self.messages.empty():
            topic, payload = self.messages.get()
            self.prefix, group, name = topic.rsplit("/", 2)
            self.seen.setdefault(f"{group}/{name}", []).append(json.loads(payload))
        return self.seen.get(kind, [])

    def command(self, retain: bool = False, **command: Any) -> None:
        self.client.publish(f"{self.prefix}/command/input", json.dumps(command), qos=1, retain=retain)

    def close(self) -> None:
        self.client.publish(f"{self.prefix}/command/input", b"", qos=1, retain=True).wait_for_publish(5)
        let_go(self.client)


@pytest.fixture
def observer(cloud: LocalCloud) -> Iterator[Observer]:
    watching = Observer(cloud.mqtt_address)
    yield watching
    watching.close()


# As someone deployed it for Edge Impulse's own component.
PEERS = {
    "node_version": "20.16.0",
    "device_name": "Shop Door",
    "launch": "runner",
    "sleep_time_sec": 10,
    "lock_filename": "/tmp/ei_lockfile_runner",
    "iotcore_backoff": "2",
    "iotcore_qos": "1",
    "ei_ggc_user_groups": "video audio input users system",
    "publish_inference_base64_image": "no",
    "enable_threshold_limit": "no",
    "metrics_sleeptime_ms": "1000",
    "default_threshold": "50.0",
}


@pytest.mark.parametrize("profile", ["java", "lite"])
def test_a_camera_model_reports_and_obeys(profile: str, start: Start, observer: Observer, tmp_path: Path) -> None:
    rings = tmp_path / "rings"
    rings.mkdir()
    model = write_launcher(tmp_path / "door.eim", Options(kind="box", width=32, height=32))
    components = {
        "camera_capture": {
            "ring_directory": str(rings),
            "cameras": {"door": {"type": "test_pattern", "width": 64, "height": 48, "fps": 20}},
        },
        "edge_impulse_runner": {
            "Parameters": {**PEERS, "ei_local_model_file": str(model)},
            "input": {"camera": "door", "ring_directory": str(rings)},
        },
    }
    with start(components, profile=profile) as core:
        eventually(lambda: len(observer.all("inference/output")) >= 3, 20, "results on IoT Core")
        first, second, *_ = observer.all("inference/output")
        assert observer.prefix.startswith("/edgeimpulse/device/Shop_Door")
        assert [box["label"] for box in first["box"]] == ["face", "face"]
        assert second["total_inferences"] - first["total_inferences"] == 4  # each second result, of two boxes
        assert observer.all("command/output")[0]["result"]["status"] == "started"
        assert observer.all("model/metrics")[0]["details"]["n"] == 0
        for _ in range(10):
            observer.command(cmd="get_threshold_filter_confidence")
        observer.command(cmd="get_model_info", retain=True)
        eventually(lambda: len(observer.all("command/output")) == 12, 10, "answers to all commands")
        answers = [message["result"] for message in observer.all("command/output")]
        assert answers[1:11] == [{"confidence_threshold": 0.5}] * 10
        assert answers[11]["model_info"]["model_version"] == "v7"
        # A restarted component gets the retained command again, and has answered it already.
        core.restart_component("edgeml.EdgeImpulseRunner")

        def begun() -> list[dict[str, Any]]:
            return [message["result"] for message in observer.all("command/output")[12:]]

        eventually(begun, 20, "a second start")

        def answered() -> bool:
            observer.command(cmd="reset_metrics")  # until it is answered: the subscription may need another try
            return {"metrics_reset": "OK"} in begun()

        eventually(answered, 10, "a subscription")
        observer.command(cmd="restart")
        eventually(lambda: {"restart": "OK"} in begun() and "status" in begun()[-1], 10, "the answer and a third start")
        assert not any("model_info" in answer for answer in begun())
    assert list(rings.iterdir()) == []
