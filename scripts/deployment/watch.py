"""How a deployment arrives: the status of its IoT job on each device."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from deployment.aws import Aws
from deployment.revision import Revision

PENDING = {"QUEUED", "IN_PROGRESS"}
FAILED = {"FAILED", "REJECTED", "TIMED_OUT"}


@dataclass(frozen=True)
class Outcome:
    """How many devices a deployment's job reached, and with what result; nothing when the job is no longer there."""

    status: str  # the deployment's
    succeeded: int = 0
    failed: int = 0  # or rejected, or timed out
    canceled: int = 0  # most often offline until a newer deployment came
    pending: int = 0

    @property
    def good(self) -> bool:
        """Whether it succeeded on its devices.

        A group's deployment does not tell: it is ACTIVE while it is the newest, and INACTIVE or CANCELED from then
        on, whatever became of it. So its job does.
        """
        if self.status == "COMPLETED" and not self.failed:
            return True
        return not self.failed and self.succeeded > self.canceled

    def __str__(self) -> str:
        counts = {name: getattr(self, name) for name in ("succeeded", "failed", "canceled", "pending")}
        return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "no devices known"


class Watch:
    def __init__(self, aws: Aws) -> None:
        self._iot = aws.client("iot")

    def things(self, thing_group: str) -> int:
        """How many things are in a group: so many devices a deployment to it is for."""
        pages = self._iot.get_paginator("list_things_in_thing_group").paginate(thingGroupName=thing_group)
        return sum(len(page["things"]) for page in pages)

    def outcome(self, revision: Revision) -> Outcome:
        """AWS forgets jobs some time after their end."""
        if not revision.job_id:
            return Outcome(revision.status)
        try:
            job = self._iot.describe_job(jobId=revision.job_id)["job"]
        except self._iot.exceptions.ResourceNotFoundException:
            return Outcome(revision.status)

        def count(*names: str) -> int:
            return sum(job.get("jobProcessDetails", {}).get(f"numberOf{name}Things", 0) for name in names)

        return Outcome(
            revision.status,
            count("Succeeded"),
            count("Failed", "Rejected", "TimedOut"),
            count("Canceled"),
            count("Queued", "InProgress"),
        )

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
