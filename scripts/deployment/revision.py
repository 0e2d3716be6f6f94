"""A thing group's deployments: what they are, what the next would be, and making it."""

import copy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from deployment import DeployError, UsageError
from deployment.aws import Aws
from deployment.configuration import Update

KEPT = ("deploymentName", "deploymentPolicies", "iotJobConfiguration", "parentTargetArn", "tags")
Components = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Revision:
    """One deployment of a target; `id` is "" when there is none yet."""

    target: str
    id: str = ""
    job_id: str = ""
    status: str = ""
    created: datetime | None = None
    components: Components = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.id} of {self.created:%Y-%m-%d %H:%M}" if self.created else self.id


class Deployments:
    def __init__(self, aws: Aws) -> None:
        self._greengrass = aws.client("greengrassv2")
        self._iot = aws.client("iot")

    def target(self, thing_group: str) -> str:
        """The group's ARN. Raises UsageError when there is no such group."""
        try:
            return str(self._iot.describe_thing_group(thingGroupName=thing_group)["thingGroupArn"])
        except self._iot.exceptions.ResourceNotFoundException as error:
            region = self._iot.meta.region_name
            raise UsageError(f"there is no thing group {thing_group} in {region}") from error

    def ids(self, target: str) -> list[str]:
        """All deployments that the target has had, newest first. Devices follow the newest."""
        pages = self._greengrass.get_paginator("list_deployments").paginate(targetArn=target, historyFilter="ALL")
        found = [summary for page in pages for summary in page["deployments"]]
        found.sort(key=lambda summary: summary["creationTimestamp"], reverse=True)
        return [summary["deploymentId"] for summary in found]

    def get(self, deployment_id: str) -> Revision:
        found = self._greengrass.get_deployment(deploymentId=deployment_id)
        settings = {key: found[key] for key in KEPT if found.get(key)}
        if "tags" in settings:  # those of AWS itself, of CloudFormation for one, nobody else may set
            settings["tags"] = {key: value for key, value in found["tags"].items() if not key.startswith("aws:")}
        return Revision(
            found["targetArn"],
            deployment_id,
            found.get("iotJobId", ""),
            found["deploymentStatus"],
            found["creationTimestamp"],
            found.get("components", {}),
            settings,
        )

    def newest(self, target: str, ids: list[str]) -> Revision:
        return self.get(ids[0]) if ids else Revision(target)

    def create(self, target: str, known: list[str], components: Components, settings: dict[str, Any]) -> Revision:
        """A new deployment, unless there is one that is not among `known`: someone else's. Raises DeployError."""
        if set(self.ids(target)) - set(known):
            raise DeployError("someone else has deployed to this group meanwhile: look at the changes again")
        try:
            made = self._greengrass.create_deployment(targetArn=target, components=components, **settings)
        except (
            self._greengrass.exceptions.ValidationException,
            self._greengrass.exceptions.ResourceNotFoundException,
            self._greengrass.exceptions.ConflictException,
        ) as error:
            raise DeployError(f"AWS does not take this deployment: {error.response['Error']['Message']}") from error
        return self.get(made["deploymentId"])


def merged(
    components: Components, versions: dict[str, str], removed: list[str], config: dict[str, Update]
) -> Components:
    """`components` with new versions and configuration; what is not mentioned stays as it is.

    Configuration is added to what the deployment has of it, so that a device that joins later gets all of it. Raises
    UsageError for a component that the deployment does not have.
    """
    result = copy.deepcopy(components)
    for name in removed:
        if result.pop(name, None) is None:
            raise UsageError(f"--remove {name}: the deployment has {_names(components)}")
    for name, version in versions.items():
        result.setdefault(name, {})["componentVersion"] = version
    for name, update in config.items():
        if name not in result:
            raise UsageError(f"--config: {name} is not in the deployment, which has {_names(result)}")
        result[name] = Update.of(result[name]).then(update).within(result[name])
    return result


def _names(components: Components) -> str:
    return ", ".join(sorted(components)) or "no components"
