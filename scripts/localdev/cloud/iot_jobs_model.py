"""A job's plan and its executions: rate of the rollout, counts, abort thresholds."""

import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from moto.core.utils import utcnow
from moto.iot.models import FakeJobExecution

OPEN, ENDED = ("QUEUED", "IN_PROGRESS"), ("SUCCEEDED", "FAILED", "REJECTED", "TIMED_OUT", "CANCELED", "REMOVED")


@dataclass
class Job:
    """A job's plan. `waiting` are things that the rollout has not reached."""

    job_id: str
    request: dict[str, Any]
    waiting: deque[str]
    credit: float = 0.0
    executions: dict[str, "Execution"] = field(default_factory=dict)

    @property
    def continuous(self) -> bool:
        """Whether things that join a target later get the job, too: it goes on until it is cancelled."""
        return self.request.get("targetSelection") == "CONTINUOUS"

    @property
    def settled(self) -> bool:
        """Whether there is no thing that it is still to reach, or that is at it."""
        return not self.waiting and all(execution.status in ENDED for execution in self.executions.values())

    @property
    def ended(self) -> bool:
        return not self.continuous and self.settled

    def counts(self) -> Counter[str]:
        return Counter(execution.status for execution in self.executions.values())

    def rate(self) -> float:
        """Things per minute, now."""
        rollout = self.request.get("jobExecutionsRolloutConfig") or {}
        limit = float(rollout.get("maximumPerMinute", 1000))
        growth = rollout.get("exponentialRate")
        if not growth:
            return limit
        criteria = growth["rateIncreaseCriteria"]
        reached = self.counts()["SUCCEEDED"] if "numberOfSucceededThings" in criteria else len(self.executions)
        steps = reached // next(iter(criteria.values()))
        return float(min(limit, growth["baseRatePerMinute"] * growth["incrementFactor"] ** steps))

    def must_abort(self) -> bool:
        """Whether so many executions have failed that the job is to be cancelled."""
        counts = self.counts()
        executed = sum(counts[status] for status in ("SUCCEEDED", "FAILED", "REJECTED", "TIMED_OUT"))
        for criterion in (self.request.get("abortConfig") or {}).get("criteriaList", []):
            kind = criterion["failureType"]
            failed = sum(counts[k] for k in ("FAILED", "REJECTED", "TIMED_OUT")) if kind == "ALL" else counts[kind]
            enough = executed >= criterion["minNumberOfExecutedThings"]
            if enough and failed * 100 >= criterion["thresholdPercentage"] * executed:
                return True
        return False


@dataclass
class Execution:
    job: Job
    thing: str
    record: FakeJobExecution
    number: int  # place in the queue of all executions
    status: str = "QUEUED"
    details: dict[str, str] = field(default_factory=dict)
    version: int = 1
    queued_at: float = field(default_factory=time.time)
    updated_at: float = field(default_factory=time.time)
    started_at: float = 0.0
    started: float = 0.0  # monotonic

    def change(self, status: str, details: dict[str, str] | None = None) -> None:
        if status == "IN_PROGRESS" and not self.started_at:
            self.started_at, self.started = time.time(), time.monotonic()
        self.status, self.version, self.updated_at = status, self.version + 1, time.time()
        self.details = self.details if details is None else details
        self.record.status, self.record.status_details_map = status, self.details
        self.record.version_number, self.record.last_updated_at = self.version, utcnow()
