"""IoT Jobs of the local cloud: how a job reaches a fleet of MQTT clients on one broker."""

import asyncio
import json
import struct
from collections import Counter, deque
from contextlib import suppress
from typing import Any

import pytest
from moto.iot.models import FakeJobExecution

from jobs_support import counts, group
from localdev.cloud import LocalCloud
from localdev.cloud.iot_jobs_model import Execution, Job
from support import eventually

FLEET = 100


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


@pytest.mark.parametrize(("bad", "base"), [(0.0, 1), (0.9, 10)], ids=["healthy", "most of it broken"])
def test_a_fleet_takes_one_job_and_the_counts_add_up(cloud: LocalCloud, iot: Any, bad: float, base: int) -> None:
    """Rolled out at five times the rate (of a minute of one second) with each success, else it takes a minute; aborted
    when 20 % of at least 20 have failed."""
    names = [f"t{number}" for number in range(FLEET)]
    arn = group(iot, "fleet", names)
    plan = {
        "jobExecutionsRolloutConfig": {
            "maximumPerMinute": 600,
            "exponentialRate": {
                "baseRatePerMinute": base,
                "incrementFactor": 5,
                "rateIncreaseCriteria": {"numberOfSucceededThings": 1},
            },
        },
        "abortConfig": {
            "criteriaList": [
                {"failureType": "ALL", "action": "CANCEL", "thresholdPercentage": 20, "minNumberOfExecutedThings": 20}
            ]
        },
    }

    async def run() -> list[str]:
        done = asyncio.Event()
        devices = [
            asyncio.create_task(simulated(cloud, name, index < FLEET * bad, done)) for index, name in enumerate(names)
        ]
        await asyncio.to_thread(iot.create_job, jobId="update", targets=[arn], document="{}", **plan)
        await asyncio.to_thread(eventually, ended, 20, "end of the job")
        done.set()
        return await asyncio.gather(*devices)

    def ended() -> bool:
        job = iot.describe_job(jobId="update")["job"]
        return bool(job["status"] != "IN_PROGRESS" and job["jobProcessDetails"]["numberOfInProgressThings"] == 0)

    reported = Counter(filter(None, asyncio.run(run())))
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


async def simulated(cloud: LocalCloud, thing: str, broken: bool, done: asyncio.Event) -> str:
    """A device on a socket of its own, with as much MQTT as it needs. What it reported, "" if it got no job.

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
            return ""
        status = "FAILED" if broken else "SUCCEEDED"
        publish(f"{base}/update/update", {"status": status})
        await receive_until(f"{base}/update/update/accepted")
        return status
    finally:
        ended.cancel()
        await asyncio.wait([offered, ended])
        send(0xE0, b"")
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
