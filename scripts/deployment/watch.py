"""How a deployment arrives: the status of its IoT job on each device."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

PENDING = {"QUEUED", "IN_PROGRESS"}


class Watch:
    def __init__(self, session: Any) -> None:
        self._iot = session.client("iot")

    def devices(self, job_id: str) -> dict[str, str]:
        """Every device's status. A job that IoT does not show yet has no devices."""
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
        self, job_id: str, timeout: float, interval: float, progress: Callable[[Counter[str]], None]
    ) -> dict[str, str]:
        """The devices' statuses when none is pending any more, or when the time is up."""
        deadline = time.monotonic() + timeout
        while True:
            devices = self.devices(job_id)
            progress(Counter(devices.values()))
            if not PENDING & set(devices.values()) or time.monotonic() + interval > deadline:
                return devices
            time.sleep(interval)
