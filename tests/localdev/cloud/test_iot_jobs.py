"""IoT Jobs of the local cloud: a fleet of MQTT clients on one broker, jobs made with boto3."""

import asyncio
import json
import queue
import struct
import time
import urllib.request
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from botocore.exceptions import ClientError
from moto.iot.models import FakeJobExecution
from paho.mqtt.enums import CallbackAPIVersion

from localdev.cloud import LocalCloud
from localdev.cloud.iot_jobs import IotJobs
from localdev.cloud.iot_jobs_model import Execution, Job
from support import eventually

ROLE = "arn:aws:iam::123456789012:role/jobs"
FLEET = 200
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


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud() as running:
        yield running


@pytest.fixture
def jobs(cloud: LocalCloud) -> Iterator[IotJobs]:
    """A minute of a rollout lasts a second here."""
    with IotJobs(cloud.aws, *cloud.mqtt_address, minute_s=1.0) as running:
        yield running
    cloud.aws.reset()


@pytest.fixture
def iot(cloud: LocalCloud, jobs: IotJobs) -> Any:
    return cloud.aws.client("iot")


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
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def device(cloud: LocalCloud, jobs: IotJobs) -> Iterator[Device]:
    made = Device(cloud, "pump")
    yield made
    made.close()


def test_a_group_is_expanded_with_its_subgroups_and_each_thing_is_told(iot: Any, device: Device) -> None:
    site = group(iot, "site", ["valve"])
    group(iot, "hall", ["pump"], parent="site")
    iot.create_job(jobId="one", targets=[site], document='{"operation": "x"}')
    assert device.next() == "one"
    eventually(lambda: len(executions(iot, "one")) == 2, 5, "two executions")
    listed = executions(iot, "one")
    assert {item["thingArn"].rpartition("/")[2] for item in listed} == {"pump", "valve"}
    execution = iot.describe_job_execution(jobId="one", thingName="pump")["execution"]
    assert (execution["status"], execution["executionNumber"]) == ("QUEUED", 1)
    details = iot.describe_job(jobId="one")["job"]["jobProcessDetails"]
    assert details["numberOfQueuedThings"] == 2


def test_jobs_are_done_in_order_and_a_restarted_device_gets_its_job_again(iot: Any, device: Device) -> None:
    arn = group(iot, "g", ["pump"])
    for name in ("first", "second"):
        iot.create_job(jobId=name, targets=[arn], document=json.dumps({"name": name}))
        time.sleep(0.01)
    assert device.next() == "first"
    for _ in range(2):
        verdict, answer = device.ask("start-next")
        assert (verdict, answer["execution"]["jobId"]) == ("accepted", "first")
        assert answer["execution"]["status"] == "IN_PROGRESS"
        assert answer["execution"]["jobDocument"] == {"name": "first"}
    verdict, _ = device.ask("first/update", status="IN_PROGRESS", statusDetails={"progress": "50"})
    assert verdict == "accepted"
    assert iot.describe_job_execution(jobId="first", thingName="pump")["execution"]["statusDetails"] == {
        "detailsMap": {"progress": "50"}
    }
    _, lists = device.ask("get")
    assert [job["jobId"] for job in lists["inProgressJobs"]] == ["first"]
    assert [job["jobId"] for job in lists["queuedJobs"]] == ["second"]
    device.ask("first/update", status="SUCCEEDED")
    assert device.next() == "second"
    device.ask("start-next")
    device.ask("second/update", status="FAILED", statusDetails={"reason": "full"})
    assert device.next() == ""
    assert device.ask("start-next") == ("accepted", {"timestamp": pytest.approx(time.time(), abs=5)})
    assert iot.describe_job(jobId="first")["job"]["status"] == "COMPLETED"
    assert iot.describe_job(jobId="second")["job"]["jobProcessDetails"]["numberOfFailedThings"] == 1


def test_updates_that_aws_refuses_are_refused(iot: Any, device: Device) -> None:
    iot.create_job(jobId="j", targets=[group(iot, "g", ["pump"])], document="{}")
    device.next()
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("nothing/update", {"status": "SUCCEEDED"}, "ResourceNotFound"),
        ("nothing/get", {}, "ResourceNotFound"),
        ("j/update", {"status": "DONE"}, "InvalidRequest"),
        ("j/update", {"status": "FAILED", "statusDetails": {"reason": "two\nlines"}}, "InvalidRequest"),
        ("j/update", {"status": "FAILED", "statusDetails": {"reason": ""}}, "InvalidRequest"),
        ("j/update", {"status": "SUCCEEDED", "expectedVersion": 7}, "VersionMismatch"),
        ("j/update", {"status": "SUCCEEDED", "executionNumber": 2}, "ResourceNotFound"),
        ("j/update", {"status": "SUCCEEDED"}, ""),
        ("j/update", {"status": "FAILED"}, "InvalidStateTransition"),
    ]
    for request, body, code in cases:
        verdict, answer = device.ask(request, **body)
        assert (verdict, answer.get("code", "")) == ("rejected" if code else "accepted", code), request


def test_a_placeholder_becomes_a_url_that_works(cloud: LocalCloud, iot: Any, device: Device) -> None:
    s3 = cloud.aws.client("s3")
    s3.create_bucket(Bucket="models")
    s3.put_object(Bucket="models", Key="a/b c.zip", Body=b"bundle")
    place = "${aws:iot:s3-presigned-url:https://s3.us-east-1.amazonaws.com/models/a/b c.zip}"
    iot.create_job(
        jobId="j",
        targets=[group(iot, "g", ["pump"])],
        document=json.dumps({"url": place}),
        presignedUrlConfig={"roleArn": ROLE, "expiresInSec": 600},
    )
    device.next()
    _, answer = device.ask("start-next")
    url = answer["execution"]["jobDocument"]["url"]
    assert url.startswith(f"{cloud.aws.url}/models/a/b%20c.zip?")
    with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310
        assert response.read() == b"bundle"
    _, again = device.ask("j/get", includeJobDocument=True)
    assert again["execution"]["jobDocument"]["url"].startswith(cloud.aws.url)


def test_requests_that_aws_refuses_are_refused(iot: Any) -> None:
    arn = group(iot, "g", ["pump"])
    placeholder = json.dumps({"u": "${aws:iot:s3-presigned-url:https://s3.us-east-1.amazonaws.com/b/k}"})
    good = {"jobId": "j", "targets": [arn], "document": "{}"}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"targets": [arn + "x"]}, "ResourceNotFoundException"),
        ({"document": "no json"}, "InvalidRequestException"),
        ({"document": json.dumps("x" * 32_767)}, "InvalidRequestException"),
        ({"document": placeholder}, "InvalidRequestException"),
        ({"jobExecutionsRolloutConfig": {"maximumPerMinute": 1001}}, "InvalidRequestException"),
        ({}, ""),
        ({}, "ResourceAlreadyExistsException"),
    ]
    for change, code in cases:
        if not code:
            iot.create_job(**{**good, **change})
            continue
        with pytest.raises(ClientError) as caught:
            iot.create_job(**{**good, **change})
        assert caught.value.response["Error"]["Code"] == code, change


def test_a_job_in_progress_times_out_and_a_cancelled_one_is_taken_back(iot: Any, device: Device) -> None:
    arn = group(iot, "g", ["pump"])
    iot.create_job(jobId="slow", targets=[arn], document="{}", timeoutConfig={"inProgressTimeoutInMinutes": 1})
    device.next()
    device.ask("start-next")
    assert device.next() == ""
    assert iot.describe_job_execution(jobId="slow", thingName="pump")["execution"]["status"] == "TIMED_OUT"
    assert counts(iot, "slow") == {"TIMED_OUT": 1}
    assert device.ask("slow/update", status="SUCCEEDED")[1]["code"] == "InvalidStateTransition"
    iot.create_job(jobId="mistake", targets=[arn], document="{}")
    assert device.next() == "mistake"
    iot.cancel_job(jobId="mistake")
    assert device.next() == ""
    assert iot.describe_job_execution(jobId="mistake", thingName="pump")["execution"]["status"] == "CANCELED"
    assert counts(iot, "mistake") == {"CANCELED": 1}


def test_the_counts_of_a_job_are_those_of_its_executions(cloud: LocalCloud, iot: Any) -> None:
    reports = ["IN_PROGRESS", "SUCCEEDED", "FAILED", "REJECTED"]
    arn = group(iot, "g", ["idle", *reports])
    with ExitStack() as stack:
        devices = [Device(cloud, thing) for thing in reports]
        for device in devices:
            stack.callback(device.close)
        iot.create_job(jobId="j", targets=[arn], document="{}")
        for device, status in zip(devices, reports, strict=True):
            assert device.next() == "j"
            assert device.ask("j/update", status=status)[0] == "accepted"
        eventually(lambda: len(executions(iot, "j")) == 5, 5, "five executions")
        assert counts(iot, "j") == {"QUEUED": 1, **dict.fromkeys(reports, 1)}
        iot.cancel_job(jobId="j")
        assert counts(iot, "j") == {"CANCELED": 1, **dict.fromkeys(reports, 1)}


@pytest.mark.parametrize(
    ("criterion", "executions", "succeeded", "rate"),
    [
        ("numberOfNotifiedThings", 0, 0, 10),
        ("numberOfNotifiedThings", 9, 9, 10),
        ("numberOfNotifiedThings", 10, 0, 30),
        ("numberOfNotifiedThings", 29, 0, 90),
        ("numberOfNotifiedThings", 50, 0, 200),
        ("numberOfSucceededThings", 50, 9, 10),
        ("numberOfSucceededThings", 50, 20, 90),
    ],
)
def test_a_rollout_grows_by_its_factor_up_to_its_maximum(
    criterion: str, executions: int, succeeded: int, rate: int
) -> None:
    growth = {"baseRatePerMinute": 10, "incrementFactor": 3, "rateIncreaseCriteria": {criterion: 10}}
    job = Job("j", {"jobExecutionsRolloutConfig": {"maximumPerMinute": 200, "exponentialRate": growth}}, deque())
    for number in range(executions):
        status = "SUCCEEDED" if number < succeeded else "FAILED"
        job.executions[str(number)] = Execution(job, str(number), FakeJobExecution("j", "arn"), number, status)
    assert job.rate() == rate


def fleet(iot: Any) -> tuple[str, list[str]]:
    names = [f"t{number}" for number in range(FLEET)]
    return group(iot, "fleet", names), names


@pytest.mark.parametrize("bad", [0.0, 0.5], ids=["healthy", "half of it broken"])
def test_a_fleet_takes_one_job_and_the_counts_add_up(cloud: LocalCloud, iot: Any, bad: float) -> None:
    """Rolled out at 600 a minute (of one second), doubling from 30; aborted when 20 % of at least 20 have failed."""
    arn, names = fleet(iot)

    async def run() -> list[tuple[str, float]]:
        done = asyncio.Event()
        devices = [
            asyncio.create_task(simulated(cloud, name, index < FLEET * bad, done)) for index, name in enumerate(names)
        ]
        await asyncio.to_thread(iot.create_job, jobId="update", targets=[arn], document="{}", **PLAN)
        await asyncio.to_thread(eventually, ended, 20, "end of the job")
        done.set()
        return await asyncio.gather(*devices)

    def ended() -> bool:
        job = iot.describe_job(jobId="update")["job"]
        return bool(job["status"] != "IN_PROGRESS" and job["jobProcessDetails"]["numberOfInProgressThings"] == 0)

    reports = asyncio.run(run())
    reported = Counter(status for status, _ in reports if status)
    status = iot.describe_job(jobId="update")["job"]["status"]
    by_status = counts(iot, "update")
    canceled = by_status.pop("CANCELED", 0)
    assert by_status == reported
    if bad:
        assert status == "CANCELED"
        assert 20 <= sum(by_status.values()) + canceled < FLEET, "a job that goes wrong must not reach everyone"
        assert reported["FAILED"] * 5 >= reported.total()
    else:
        assert (status, by_status, canceled) == ("COMPLETED", {"SUCCEEDED": FLEET}, 0)
        times = [at for _, at in reports]
        assert max(times) - min(times) < FLEET / 30 / 2, "a rollout that does not grow takes twice as long"


PLAN = {
    "jobExecutionsRolloutConfig": {
        "maximumPerMinute": 600,
        "exponentialRate": {
            "baseRatePerMinute": 30,
            "incrementFactor": 2,
            "rateIncreaseCriteria": {"numberOfSucceededThings": 20},
        },
    },
    "abortConfig": {
        "criteriaList": [
            {"failureType": "ALL", "action": "CANCEL", "thresholdPercentage": 20, "minNumberOfExecutedThings": 20}
        ]
    },
}


async def simulated(cloud: LocalCloud, thing: str, broken: bool, done: asyncio.Event) -> tuple[str, float]:
    """A device on a socket of its own, with as much MQTT as it needs. What it reported, "" if it got no job; and when.

    Like a real one it asks for a job when it has connected, and again whenever it is told of one.
    """
    base = f"$aws/things/{thing}/jobs"
    reader, writer = await asyncio.open_connection(*cloud.mqtt_address)

    def send(kind: int, body: bytes) -> None:
        assert len(body) < 16_384
        size = bytes([len(body)]) if len(body) < 128 else bytes([len(body) % 128 | 128, len(body) // 128])
        writer.write(bytes([kind]) + size + body)

    def text(value: str) -> bytes:
        return struct.pack(">H", len(value.encode())) + value.encode()

    async def receive() -> tuple[int, bytes]:
        kind = (await reader.readexactly(1))[0]
        size = shift = 0
        while True:
            byte = (await reader.readexactly(1))[0]
            size |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return kind, await reader.readexactly(size)

    async def receive_until(*topics: str) -> tuple[str, dict[str, Any]]:
        while True:
            kind, body = await receive()
            if kind >> 4 == 3:
                end = 2 + struct.unpack(">H", body[:2])[0]
                if body[2:end].decode() in topics:
                    return body[2:end].decode(), json.loads(body[end:])

    def publish(topic: str, body: dict[str, Any]) -> None:
        send(0x30, text(topic) + json.dumps(body).encode())

    async def job() -> None:
        send(0x10, text("MQTT") + b"\x04\x02\x00\x3c" + text(thing))
        filters = (f"{base}/notify-next", f"{base}/start-next/accepted", f"{base}/update/update/accepted")
        send(0x82, b"\x00\x01" + b"".join(text(topic) + b"\x00" for topic in filters))
        publish(f"{base}/start-next", {})
        while True:
            topic, body = await receive_until(f"{base}/notify-next", f"{base}/start-next/accepted")
            if topic.endswith("/accepted") and body.get("execution"):
                return
            if body.get("execution"):
                publish(f"{base}/start-next", {})

    offered, ended = asyncio.create_task(job()), asyncio.create_task(done.wait())
    try:
        await asyncio.wait([offered, ended], return_when=asyncio.FIRST_COMPLETED)
        if not offered.done():
            offered.cancel()
            return "", 0.0
        status, offered_at = "FAILED" if broken else "SUCCEEDED", time.monotonic()
        publish(f"{base}/update/update", {"status": status})
        await receive_until(f"{base}/update/update/accepted")
        return status, offered_at
    finally:
        ended.cancel()
        await asyncio.wait([offered, ended])
        send(0xE0, b"")
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
