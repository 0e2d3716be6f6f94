"""What tests of IoT Jobs share: groups of things, a job's executions and their counts, and a thing that asks."""

import json
import queue
from collections import Counter
from typing import Any

import paho.mqtt.client as mqtt
from moto.iot.models import iot_backends
from paho.mqtt.enums import CallbackAPIVersion

from localdev.cloud import LocalCloud
from localdev.cloud.aws import ACCOUNT, REGION
from localdev.mqtt_end import let_go

COUNTS = {
    "QUEUED": "Queued",
    "IN_PROGRESS": "InProgress",
    "SUCCEEDED": "Succeeded",
    "FAILED": "Failed",
    "REJECTED": "Rejected",
    "TIMED_OUT": "TimedOut",
    "CANCELED": "Canceled",
    "REMOVED": "Removed",
}


def status(job_id: str, thing: str) -> str:
    """Of a job's execution, empty before it is rolled out.

    Read from moto's memory: to ask its API costs more, time and again, than what is waited for.
    """
    execution = iot_backends[ACCOUNT][REGION].job_executions.get((job_id, thing))
    return execution.status if execution else ""


def group(iot: Any, name: str, things: list[str], parent: str = "") -> str:
    """A thing group with new things; its ARN."""
    arn = iot.create_thing_group(thingGroupName=name, **({"parentGroupName": parent} if parent else {}))[
        "thingGroupArn"
    ]
    for thing in things:
        iot.create_thing(thingName=thing)
        iot.add_thing_to_thing_group(thingGroupName=name, thingName=thing)
    return str(arn)


def executions(iot: Any, job_id: str) -> list[dict[str, Any]]:
    pages = iot.get_paginator("list_job_executions_for_job").paginate(jobId=job_id)
    return [summary for page in pages for summary in page["executionSummaries"]]


def counts(iot: Any, job_id: str) -> dict[str, int]:
    """Executions by status, those of which there are any; as the job tells them, which must be as they are."""
    details = iot.describe_job(jobId=job_id)["job"]["jobProcessDetails"]
    told = {status: details[f"numberOf{name}Things"] for status, name in COUNTS.items()}
    listed = Counter(summary["jobExecutionSummary"]["status"] for summary in executions(iot, job_id))
    assert told == {status: listed[status] for status in COUNTS}
    return dict(listed)


class Device:
    """One thing's MQTT client: asks, and collects what is published to it."""

    def __init__(self, cloud: LocalCloud, thing: str) -> None:
        self._base = f"$aws/things/{thing}/jobs"
        self.inbox: queue.Queue[tuple[str, dict[str, Any]]] = queue.Queue()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        ready: queue.Queue[bool] = queue.Queue()
        self._client.on_connect = lambda client, *_: client.subscribe(
            [(f"{self._base}/{t}", 1) for t in ("notify-next", "start-next/+", "get/+", "+/get/+", "+/update/+")]
        )
        self._client.on_subscribe = lambda *_: ready.put(True)
        self._client.on_message = lambda client, data, m: self.inbox.put(
            (m.topic.removeprefix(f"{self._base}/"), json.loads(m.payload))
        )
        self._client.connect(*cloud.mqtt_address)
        self._client.loop_start()
        ready.get(timeout=5)

    def ask(self, request: str, **body: Any) -> tuple[str, dict[str, Any]]:
        """`accepted` or `rejected`, and the answer. Notifications that come in between are kept aside."""
        self._client.publish(f"{self._base}/{request}", json.dumps({"clientToken": "t", **body}), qos=1)
        aside: list[tuple[str, dict[str, Any]]] = []
        while True:
            topic, answer = self.inbox.get(timeout=5)
            if topic.startswith(f"{request}/"):
                assert answer.pop("clientToken") == "t"
                for item in aside:
                    self.inbox.put(item)
                return topic.rpartition("/")[2], answer
            aside.append((topic, answer))

    def next(self) -> str:
        """The job of the next notification, "" for none left."""
        topic, body = self.inbox.get(timeout=5)
        assert topic == "notify-next"
        return str(body.get("execution", {}).get("jobId", ""))

    def close(self) -> None:
        let_go(self._client)
