"""How a deployment arrives: the status of its IoT job on each device."""

import time
from collections import Counter
from collections.abc import Callable

from deployment.aws import Aws

PENDING = {"QUEUED", "IN_PROGRESS"}


class Watch:
    def __init__(self, aws: Aws) -> None:
        self._iot = aws.client("iot")

    def things(self, thing_group: str) -> int:
        """How many things are in a group: so many devices a deployment to it is for."""
        pages = self._iot.get_paginator("list_things_in_thing_group").paginate(thingGroupName=thing_group)
        return sum(len(page["things"]) for page in pages)

    def devices(self, job_id: str) -> dict[str, str]:
        """Status of each device that the job has reached: none at first, then as many as its rollout lets."""
        pages = self._iot.get_paginator("list_job_executions_for_job").paginate(jobId=job_id)
        try:
            return {
                summary["thingArn"].rpartition("/")[2]: summary["jobExecutionSummary"]["status"]
                for page in pages
                for summary in page["executionSummaries"]
            }
        except self._iot.exceptions.ResourceNotFoundException:
            return {}

    def wait(
        self, job_id: str, expected: int, timeout: float, interval: float, progress: Callable[[Counter[str]], None]
    ) -> dict[str, str]:
        """The devices' statuses when `expected` are there and none is pending any more, or when the time is up."""
        deadline = time.monotonic() + timeout
        while True:
            devices = self.devices(job_id)
            progress(Counter(devices.values()))
            arrived = len(devices) >= expected and not PENDING & set(devices.values())
            if arrived or time.monotonic() + interval > deadline:
                return devices
            time.sleep(interval)
