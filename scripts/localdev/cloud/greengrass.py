"""A stand-in for the greengrassv2 API: component versions and deployments.

Deployments to a thing group reach the things that are in it at that moment, as executions of an IoT job; `report` is
how a simulated device, or a test, says what became of it. CreateDeployment takes component versions that do not
exist: nothing that AWS documents says that it refuses them, and devices are where it would show.
"""

import json
import re
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from botocore.loaders import Loader

from localdev.cloud.aws import ACCOUNT, REGION, LocalAws, Request, Response
from localdev.cloud.greengrass_components import VERSION, Answer, ApiError, Components, invalid, missing, page

TARGET = re.compile(rf"arn:aws:iot:{REGION}:{ACCOUNT}:(thing|thinggroup)/(.+)")
TOKEN_S = 8 * 3600  # AWS: "the token remains valid for eight hours"
COUNTED = {  # statuses of job executions, and how DescribeJob calls them
    "CANCELED": "Canceled",
    "SUCCEEDED": "Succeeded",
    "FAILED": "Failed",
    "REJECTED": "Rejected",
    "QUEUED": "Queued",
    "IN_PROGRESS": "InProgress",
    "REMOVED": "Removed",
    "TIMED_OUT": "TimedOut",
}


@dataclass
class Deployment:
    id: str
    job_id: str
    request: dict[str, Any]
    created: float
    status: str = "ACTIVE"
    executions: dict[str, str] = field(default_factory=dict)  # thing to status


class Greengrass:
    """A stand-in for LocalAws; `on_deployment` hears of every new deployment."""

    def __init__(self, aws: LocalAws) -> None:
        self._aws = aws
        self._lock = threading.RLock()
        self._routes = _routes("greengrassv2") + [
            (method, path, name)
            for method, path, name in _routes("iot")
            if name in ("ListJobExecutionsForJob", "DescribeJob")
        ]
        self.components: Components = Components(aws)
        self.deployments: list[Deployment] = []  # oldest first
        self.superseded = "CANCELED"  # AWS's guide says so; its API reference has INACTIVE, too
        self._answers: dict[str, tuple[float, Answer]] = {}  # by client token
        self.on_deployment: list[Callable[[Deployment], None]] = []

    def __call__(self, request: Request) -> Response | None:
        if request.service not in ("greengrass", "iot"):
            return None
        for method, path, name in self._routes:
            found = path.fullmatch(request.path) if method == request.method else None
            handler = OPERATIONS.get(name)
            if found and handler:
                return self._answer(request, handler, found.groupdict())
        if request.service == "iot":
            return None
        return _error(501, "InternalServerException", f"{request.method} {request.path} is not implemented here")

    def forget(self) -> None:
        """Back to the start: no components, no deployments."""
        with self._lock:
            self.components = Components(self._aws)
            self.deployments.clear()
            self._answers.clear()
            self.superseded = "CANCELED"

    def report(self, deployment_id: str, thing: str, status: str) -> None:
        """What a device says of a deployment: IN_PROGRESS, SUCCEEDED, FAILED, ..."""
        with self._lock:
            self._deployment(deployment_id).executions[thing] = status

    def _answer(self, request: Request, handler: Callable[..., Answer | None], path: dict[str, str]) -> Response | None:
        body = json.loads(request.body) if request.body and request.method == "POST" else {}
        try:
            with self._lock:
                answer = handler(self, {**request.query, **body, **path})
        except ApiError as error:
            return _error(error.status, error.code, str(error))
        return None if answer is None else Response(json.dumps(answer, default=str).encode())

    def create_deployment(self, p: dict[str, Any]) -> Answer:
        """A client token that comes again within TOKEN_S gets its first answer, and nothing is made."""
        made, answer = self._answers.get(token := p.get("clientToken", ""), (0.0, {}))
        if token and answer and time.time() - made < TOKEN_S:
            return answer
        answer = self._create(p)
        self._answers[token] = time.time(), answer
        return answer

    def _create(self, p: dict[str, Any]) -> Answer:
        if any(key.startswith("aws:") for key in p.get("tags", {})):
            raise invalid("Tag keys that begin with aws: are reserved")
        target = TARGET.fullmatch(p["targetArn"])
        if target is None:
            raise invalid(f"Invalid targetArn {p['targetArn']}")
        for name, specification in p.get("components", {}).items():
            _check(name, specification)
        things = self._things(target[1], target[2])
        for other in self.deployments:
            if other.request["targetArn"] == p["targetArn"] and other.status == "ACTIVE":
                other.status = self.superseded
                _withdraw(other)
        made = Deployment(str(uuid.uuid4()), str(uuid.uuid4()), p, time.time())
        made.executions = dict.fromkeys(things, "QUEUED")
        self.deployments.append(made)
        for callback in self.on_deployment:
            callback(made)
        return {"deploymentId": made.id, "iotJobId": made.job_id, "iotJobArn": _job_arn(made)}

    def _things(self, kind: str, name: str) -> list[str]:
        if kind == "thing":
            return [name]
        iot = self._aws.client("iot")
        try:
            pages = iot.get_paginator("list_things_in_thing_group").paginate(thingGroupName=name)
            return [thing for page in pages for thing in page["things"]]
        except iot.exceptions.ResourceNotFoundException as error:
            raise missing(f"Thing group {name} does not exist") from error

    def get_deployment(self, p: dict[str, Any]) -> Answer:
        deployment = self._deployment(p["deploymentId"])
        keys = ("components", "deploymentPolicies", "iotJobConfiguration", "tags")
        extra = {key: deployment.request[key] for key in keys if key in deployment.request}
        return self._summary(deployment) | {"iotJobId": deployment.job_id, "iotJobArn": _job_arn(deployment)} | extra

    def list_deployments(self, p: dict[str, Any]) -> Answer:
        latest_only = p.get("historyFilter", "LATEST_ONLY") == "LATEST_ONLY"
        found = [
            summary
            for summary in map(self._summary, reversed(self.deployments))
            if p.get("targetArn") in (None, summary["targetArn"]) and (summary["isLatestForTarget"] or not latest_only)
        ]
        return page("deployments", found, p)

    def cancel_deployment(self, p: dict[str, Any]) -> Answer:
        deployment = self._deployment(p["deploymentId"])
        if deployment.status != "ACTIVE":
            raise ApiError(409, "ConflictException", f"Deployment {deployment.id} is {deployment.status}")
        deployment.status = "CANCELED"
        _withdraw(deployment)
        return {"message": "SUCCESS"}

    def list_effective_deployments(self, p: dict[str, Any]) -> Answer:
        thing = p["coreDeviceThingName"]
        items = [
            {
                "deploymentId": d.id,
                "deploymentName": d.request.get("deploymentName", ""),
                "iotJobId": d.job_id,
                "iotJobArn": _job_arn(d),
                "targetArn": d.request["targetArn"],
                "coreDeviceExecutionStatus": d.executions[thing],
                "creationTimestamp": d.created,
                "modifiedTimestamp": d.created,
            }
            for d in reversed(self.deployments)
            if thing in d.executions and self._latest(d)
        ]
        return page("effectiveDeployments", items, p)

    def describe_job(self, p: dict[str, Any]) -> Answer | None:
        deployment = next((d for d in self.deployments if d.job_id == p["jobId"]), None)
        if deployment is None:
            return None  # a job that others made
        counts = Counter(deployment.executions.values())
        return {
            "job": {
                "jobId": deployment.job_id,
                "jobArn": _job_arn(deployment),
                "targetSelection": "CONTINUOUS",
                "targets": [deployment.request["targetArn"]],
                "status": "IN_PROGRESS" if deployment.status == "ACTIVE" else "CANCELED",
                "jobProcessDetails": {f"numberOf{name}Things": counts[status] for status, name in COUNTED.items()},
            }
        }

    def list_job_executions(self, p: dict[str, Any]) -> Answer | None:
        deployment = next((d for d in self.deployments if d.job_id == p["jobId"]), None)
        if deployment is None:
            return None
        items = [
            {
                "thingArn": f"arn:aws:iot:{REGION}:{ACCOUNT}:thing/{thing}",
                "jobExecutionSummary": {"status": status, "queuedAt": deployment.created, "executionNumber": 1},
            }
            for thing, status in deployment.executions.items()
            if p.get("status", status) == status
        ]
        return page("executionSummaries", items, p)

    def _deployment(self, deployment_id: str) -> Deployment:
        for deployment in self.deployments:
            if deployment.id == deployment_id:
                return deployment
        raise missing(f"Deployment {deployment_id} does not exist")

    def _latest(self, deployment: Deployment) -> bool:
        target = deployment.request["targetArn"]
        return deployment is [d for d in self.deployments if d.request["targetArn"] == target][-1]

    def _summary(self, deployment: Deployment) -> Answer:
        target = deployment.request["targetArn"]
        same = [d for d in self.deployments if d.request["targetArn"] == target]
        return {
            "targetArn": target,
            "revisionId": str(same.index(deployment) + 1),
            "deploymentId": deployment.id,
            "deploymentName": deployment.request.get("deploymentName", ""),
            "creationTimestamp": deployment.created,
            "deploymentStatus": deployment.status,
            "isLatestForTarget": deployment is same[-1],
        }


OPERATIONS: dict[str, Callable[[Greengrass, dict[str, Any]], Answer | None]] = {
    "CreateComponentVersion": lambda greengrass, p: greengrass.components.create(p),
    "DescribeComponent": lambda greengrass, p: greengrass.components.describe(p),
    "GetComponent": lambda greengrass, p: greengrass.components.get(p),
    "DeleteComponent": lambda greengrass, p: greengrass.components.delete(p),
    "ListComponentVersions": lambda greengrass, p: greengrass.components.list_versions(p),
    "ListComponents": lambda greengrass, p: greengrass.components.list_all(p),
    "CreateDeployment": Greengrass.create_deployment,
    "GetDeployment": Greengrass.get_deployment,
    "ListDeployments": Greengrass.list_deployments,
    "CancelDeployment": Greengrass.cancel_deployment,
    "ListEffectiveDeployments": Greengrass.list_effective_deployments,
    "DescribeJob": Greengrass.describe_job,
    "ListJobExecutionsForJob": Greengrass.list_job_executions,
}


def _check(name: str, specification: dict[str, Any]) -> None:
    """A stand-in's own checks: AWS documents neither them nor their texts."""
    version = specification.get("componentVersion", "")
    if not VERSION.fullmatch(version):
        raise invalid(f"{name}: componentVersion {version!r} is not a semantic version")
    merge = specification.get("configurationUpdate", {}).get("merge", "{}")
    try:
        valid = isinstance(json.loads(merge), dict)
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise invalid(f"{name}: configurationUpdate.merge is not a JSON object in a string")


def _withdraw(deployment: Deployment) -> None:
    """A device that has not received the deployment no longer gets it; for one that has, nothing changes."""
    for thing, status in deployment.executions.items():
        if status == "QUEUED":
            deployment.executions[thing] = "CANCELED"


@cache
def _routes(service: str) -> list[tuple[str, re.Pattern[str], str]]:
    """Method, path and name of a service's operations, from boto3's own description of it."""
    operations = Loader().load_service_model(service, "service-2")["operations"]
    return [
        (
            spec["http"]["method"],
            re.compile(re.sub(r"\{(\w+)\+?\}", r"(?P<\1>[^/]+)", spec["http"]["requestUri"])),
            name,
        )
        for name, spec in operations.items()
    ]


def _job_arn(deployment: Deployment) -> str:
    return f"arn:aws:iot:{REGION}:{ACCOUNT}:job/{deployment.job_id}"


def _error(status: int, code: str, message: str) -> Response:
    headers = {"Content-Type": "application/json", "x-amzn-ErrorType": code}
    return Response(json.dumps({"message": message}).encode(), status, headers)
