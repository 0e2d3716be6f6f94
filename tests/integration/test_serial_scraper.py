"""A microcontroller's results reach an independent MQTT client, and commands come back, through built components."""

import json
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from edgeml.edge_impulse.device import default_mac, device_name
from integration.conftest import Start
from localdev.cloud import LocalCloud
from localdev.mqtt_end import let_go
from localdev.simulators.mcu import Mcu, detections
from support import eventually

DEVICE = f"/edgeimpulse/device/{device_name('door', default_mac())}"


class Listener:
    """An MQTT client that has nothing to do with the core: what it hears, by topic."""

    def __init__(self, address: tuple[str, int]) -> None:
        self._messages: dict[str, queue.Queue[Any]] = {}
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self._client.on_message = self._heard
        self._client.connect(*address)
        for topic in (f"{DEVICE}/inference/output", f"{DEVICE}/model/metrics", f"{DEVICE}/command/output"):
            self._messages[topic] = queue.Queue()
            self._client.subscribe(topic, qos=1)
        self._client.loop_start()

    def _heard(self, client: mqtt.Client, data: Any, message: mqtt.MQTTMessage) -> None:
        self._messages[message.topic].put(json.loads(message.payload))

    def next(self, topic: str) -> Any:
        return self._messages[f"{DEVICE}/{topic}"].get(timeout=20)

    def command(self, payload: dict[str, Any]) -> None:
        self._client.publish(f"{DEVICE}/command/input", json.dumps(payload), qos=1).wait_for_publish(5)

    def close(self) -> None:
        let_go(self._client)


@pytest.fixture
def listener(cloud: LocalCloud) -> Iterator[Listener]:
    client = Listener(cloud.mqtt_address)
    yield client
    client.close()


@pytest.mark.parametrize("profile", ["java", "lite"])
def test_a_boards_results_metrics_and_answers_reach_iot_core(
    profile: str, start: Start, listener: Listener, tmp_path: Path
) -> None:
    link = tmp_path / "ttyMCU"
    scraper = {
        "Parameters": {"device_name": "door", "iotcore_backoff": "1"},
        "ports": {"door": {"device": str(link), "mode": "run"}},
    }
    with Mcu(link, detections(), interval_s=0.1) as board, start({"serial_scraper": scraper}, profile=profile) as core:
        result = listener.next("inference/output")
        assert [box["label"] for box in result["box"]] == ["face", "cup"]
        assert result["time_splits"]["UOM"] == "ms"
        assert listener.next("model/metrics")["confidence_trend"] in ("incr", "flat", "decr")
        assert listener.next("command/output")["result"]["status"] == "started"
        listener.command({"cmd": "get_model_info"})
        assert listener.next("command/output")["result"]["model_info"]["model_name"] == "Door watch"
        board.unplug()
        board.plug_in()
        eventually(lambda: board.running, what="a board found again")
        assert core.state("edgeml.SerialScraper") == "RUNNING"
