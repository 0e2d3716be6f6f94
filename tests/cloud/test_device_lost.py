"""The alarm for lost devices: of a process that is killed and one that says goodbye, the rule counts the first."""

import datetime
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from localdev.cloud import LocalCloud
from localdev.mqtt_end import let_go
from support import eventually

DEVICE = """
import sys
import paho.mqtt.client as mqtt
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=sys.argv[1])
client.on_connect = lambda *_: print("connected", flush=True)
client.connect(sys.argv[2], int(sys.argv[3]))
client.loop_start()
sys.stdin.readline()
client.disconnect()
client.loop_stop()
"""


@contextmanager
def device(cloud: LocalCloud, name: str) -> Iterator["subprocess.Popen[str]"]:
    host, port = cloud.mqtt_address
    command = [sys.executable, "-c", DEVICE, name, host, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "connected\n"
        yield process


@pytest.fixture
def ends(cloud: LocalCloud) -> Iterator[list[dict[str, Any]]]:
    """What AWS IoT tells of connections that ended."""
    told: list[dict[str, Any]] = []
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    client.on_message = lambda _c, _d, message: told.append(json.loads(message.payload))
    client.connect(*cloud.mqtt_address)
    client.loop_start()
    subscribed: list[object] = []
    client.on_subscribe = lambda *_: subscribed.append(True)
    client.subscribe("$aws/events/presence/disconnected/+", 1)
    eventually(lambda: subscribed, what="subscribed")
    yield told
    let_go(client)


def lost(cloud: LocalCloud) -> float:
    """Data points of the alarm's metric."""
    now = datetime.datetime.now(datetime.UTC)
    found = cloud.aws.client("cloudwatch").get_metric_statistics(
        Namespace="EdgeML/Devices",
        MetricName="Lost",
        StartTime=now - datetime.timedelta(hours=1),
        EndTime=now + datetime.timedelta(hours=1),
        Period=7200,
        Statistics=["SampleCount"],
    )
    return float(sum(point["SampleCount"] for point in found["Datapoints"]))


def test_a_killed_device_is_counted_and_one_that_says_goodbye_is_not(
    cloud: LocalCloud, ends: list[dict[str, Any]]
) -> None:
    with device(cloud, "polite") as process:
        process.communicate("\n", timeout=10)
    with device(cloud, "killed") as process:
        process.kill()
    eventually(lambda: len(ends) == 2, what="both are gone")
    cloud.drain()
    assert [(end["clientId"], end["clientInitiatedDisconnect"]) for end in ends] == [
        ("polite", True),
        ("killed", False),
    ]
    assert lost(cloud) == 1
