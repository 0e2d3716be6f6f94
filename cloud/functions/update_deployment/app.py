"""A new version of a model component -> the thing group's deployment, with that version and everything else as it was.

Greengrass has no compare-and-set for deployments: whoever creates one replaces the latest. So after creating ours we
look whether someone else created one since we read, and if so do it again on top of theirs. What we build upon is found
in the very list that later ones are told by, so none can slip in between; the newest of it becomes a tag of ours, so
that a retry after a crash can still look. It competes with itself as with others; the template's ReserveConcurrency
spares it that.
"""

import hashlib
import os
import re
import time
from datetime import datetime
from typing import Any, NamedTuple

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config

METRICS_PREFIX = os.environ.get("METRICS_PREFIX", "EdgeML")
THING_GROUP_ARN = os.environ["THING_GROUP_ARN"]
ROLLOUT_START_PER_MINUTE = int(os.environ.get("ROLLOUT_START_PER_MINUTE", "10"))
ROLLOUT_MAX_PER_MINUTE = int(os.environ.get("ROLLOUT_MAX_PER_MINUTE", "1000"))
ROLLOUT_FACTOR = float(os.environ.get("ROLLOUT_FACTOR", "2"))
ABORT_PERCENT = float(os.environ.get("ABORT_PERCENT", "10"))
ABORT_MIN_EXECUTED = int(os.environ.get("ABORT_MIN_EXECUTED", "5"))
TIMEOUT_MINUTES = int(os.environ.get("TIMEOUT_MINUTES", "120"))
COMPONENT_WAIT_S = float(os.environ.get("COMPONENT_WAIT_S", "10"))

MODEL_COMPONENT = re.compile(r"edgeml\.model\.[A-Za-z0-9_-]{1,64}")
VERSION = re.compile(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
ATTEMPTS = 3
KEPT = ("deploymentName", "parentTargetArn")
SEEN = "edgeml:seen"  # tag: id of the newest deployment there was when ours was made

logger = Logger()
metrics = Metrics(namespace=f"{METRICS_PREFIX}/Models")
# A deployment that nobody else changes meanwhile takes five calls: they and the wait for the component end within the
# function's timeout even if every attempt hangs. What takes longer is left to a retry.
config = Config(connect_timeout=1, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 2})
greengrass = boto3.client("greengrassv2", config=config)

Deployment = dict[str, Any]


class Made(NamedTuple):
    """When a deployment was made, and what was said of it in the same breath."""

    created: datetime
    status: str


History = dict[str, Made]  # by deployment id


class Refused(Exception):  # noqa: N818  (a verdict on the request: no retry would change it)
    """There is nothing that could be deployed."""


class ConcurrentChange(Exception):  # noqa: N818  (an event, which Lambda answers by another try)
    """Others kept creating deployments; ours may have replaced theirs."""


class NotReady(Exception):  # noqa: N818  (a state, which Lambda answers by another try)
    """The component version is still being made."""


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, str]:
    """`{"component_name", "component_version"}` -> status created, unchanged or refused, with deployment or reason.

    Raises ConcurrentChange, NotReady and errors of AWS, for Lambda to try again.
    """
    name, version = str(event.get("component_name")), str(event.get("component_version"))
    refused = 0
    try:
        answer = update(name, version)
    except Refused as reason:
        refused = 1
        logger.error("not deployed", extra={"component": name, "version": version, "reason": str(reason)})
        return {"status": "refused", "reason": str(reason)}
    finally:
        metrics.add_metric(name="RequestsRefused", unit=MetricUnit.Count, value=refused)
    logger.info("deployment", extra={"component": name, "version": version, **answer})
    return answer


def update(name: str, version: str) -> dict[str, str]:
    if not MODEL_COMPONENT.fullmatch(name) or not VERSION.fullmatch(version):
        raise Refused(f"{name} {version} is not a version of a model component")
    check_component(name, version)
    known = history()
    if not known:
        raise Refused(f"there is no deployment for {THING_GROUP_ARN} yet; make the first one by hand")
    base = in_force(known)
    for _ in range(ATTEMPTS):
        components = base.get("components", {})
        if name not in components:
            raise Refused(f"{name} is not part of deployment {base['deploymentId']}")
        if components[name]["componentVersion"] == version and base.get("isLatestForTarget"):
            foreign = overtaken(base, known)
            status, ours = "unchanged", base["deploymentId"]
        else:
            status, ours = "created", create(base, name, version, max(known, key=known.__getitem__))
            before, known = known, history()
            foreign = {each: created for each, created in known.items() if each != ours and each not in before}
        if not foreign:
            return {"status": status, "deployment": ours}
        base = newest(foreign)
        logger.warning("deployment changed meanwhile", extra={"ours": ours, "theirs": base["deploymentId"]})
    raise ConcurrentChange(f"{ATTEMPTS} deployments for {THING_GROUP_ARN} were overtaken by others")


def overtaken(ours: Deployment, known: History) -> History:
    """What others deployed after we looked and before `ours` was made; nothing when it is not one of ours."""
    since = known.get(ours.get("tags", {}).get(SEEN, ""))
    if since is None:
        return {}
    until = known[ours["deploymentId"]]
    return {each: created for each, created in known.items() if since < created < until}


def check_component(name: str, version: str) -> None:
    """Waits while a new version is being made. Raises Refused when it does not exist or cannot be deployed."""
    partition, region, account = (THING_GROUP_ARN.split(":")[i] for i in (1, 3, 4))
    arn = f"arn:{partition}:greengrass:{region}:{account}:components:{name}:versions:{version}"
    deadline = time.monotonic() + COMPONENT_WAIT_S
    while True:
        try:
            status = greengrass.describe_component(arn=arn)["status"]
        except greengrass.exceptions.ResourceNotFoundException as error:
            raise Refused(f"there is no component {name} {version}") from error
        state = status.get("componentState", "DEPLOYABLE")
        if state == "DEPLOYABLE":
            return
        if state not in ("REQUESTED", "INITIATED"):
            raise Refused(f"component {name} {version} is {state}: {status.get('message', '')}")
        if time.monotonic() > deadline:
            raise NotReady(f"component {name} {version} is {state} after {COMPONENT_WAIT_S:g} s")
        time.sleep(1)


def history() -> History:
    """Ids of all deployments that the thing group has had, whatever became of them, and when they were made.

    One that a newer one replaced is CANCELED or INACTIVE, just as one that somebody cancelled.
    """
    pages = greengrass.get_paginator("list_deployments").paginate(targetArn=THING_GROUP_ARN, historyFilter="ALL")
    found = (each for page in pages for each in page["deployments"])
    return {each["deploymentId"]: Made(each["creationTimestamp"], each["deploymentStatus"]) for each in found}


def in_force(deployments: History) -> Deployment:
    """What devices follow: the newest deployment, or the one before it if the newest itself was cancelled.

    Raises Refused when the only one was cancelled.
    """
    latest = max(deployments, key=deployments.__getitem__)
    if deployments[latest].status != "CANCELED":
        return newest(deployments)
    earlier = {each: made for each, made in deployments.items() if each != latest}
    if not earlier:
        raise Refused(f"the only deployment for {THING_GROUP_ARN} was cancelled; make another one by hand")
    return newest(earlier)


def newest(deployments: History) -> Deployment:
    return dict(greengrass.get_deployment(deploymentId=max(deployments, key=deployments.__getitem__)))


def create(base: Deployment, name: str, version: str, seen: str) -> str:
    """`base` again, with one version changed and our rules for rollout and rollback. The new deployment's id."""
    components = {**base["components"], name: {**base["components"][name], "componentVersion": version}}
    # AWS answers one token for eight hours with what it made the first time: what was seen last belongs to it.
    source = "\n".join((base["deploymentId"], name, version, seen))
    tags = {key: value for key, value in base.get("tags", {}).items() if not key.startswith("aws:")}
    made = greengrass.create_deployment(
        targetArn=THING_GROUP_ARN,
        components=components,
        deploymentPolicies={**base.get("deploymentPolicies", {}), "failureHandlingPolicy": "ROLLBACK"},
        iotJobConfiguration=job_configuration(),
        clientToken=hashlib.sha256(source.encode()).hexdigest(),
        tags={**tags, SEEN: seen},
        **{field: base[field] for field in KEPT if base.get(field)},
    )
    metrics.add_metric(name="DeploymentsCreated", unit=MetricUnit.Count, value=1)
    return str(made["deploymentId"])


def job_configuration() -> dict[str, Any]:
    return {
        "jobExecutionsRolloutConfig": {
            "maximumPerMinute": ROLLOUT_MAX_PER_MINUTE,
            "exponentialRate": {
                "baseRatePerMinute": ROLLOUT_START_PER_MINUTE,
                "incrementFactor": ROLLOUT_FACTOR,
                "rateIncreaseCriteria": {"numberOfSucceededThings": ROLLOUT_START_PER_MINUTE},
            },
        },
        "abortConfig": {
            "criteriaList": [
                {
                    "failureType": "ALL",
                    "action": "CANCEL",
                    "thresholdPercentage": ABORT_PERCENT,
                    "minNumberOfExecutedThings": ABORT_MIN_EXECUTED,
                }
            ]
        },
        "timeoutConfig": {"inProgressTimeoutInMinutes": TIMEOUT_MINUTES},
    }
