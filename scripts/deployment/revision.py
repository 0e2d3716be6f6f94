"""A thing group's deployment: what it is now, what it would become, and becoming it."""

import copy
import json
from dataclasses import dataclass, field
from typing import Any

from deployment import DeployError

KEPT = ("deploymentName", "deploymentPolicies", "iotJobConfiguration", "parentTargetArn", "tags")
Components = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Revision:
    """One deployment of a target; `id` is "" when there is none yet."""

    target: str
    id: str = ""
    job_id: str = ""
    status: str = ""
    components: Components = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


class Deployments:
    def __init__(self, session: Any) -> None:
        self._greengrass = session.client("greengrassv2")
        self._iot = session.client("iot")

    def target(self, thing_group: str) -> str:
        """The group's ARN. Raises DeployError when there is no such group."""
        try:
            return str(self._iot.describe_thing_group(thingGroupName=thing_group)["thingGroupArn"])
        except self._iot.exceptions.ResourceNotFoundException as error:
            raise DeployError(f"there is no thing group {thing_group}") from error

    def current(self, target: str) -> Revision:
        for summary in self._list(target, "LATEST_ONLY"):
            return self.get(summary["deploymentId"])
        return Revision(target)

    def previous(self, target: str) -> Revision:
        """The newest deployment whose components differ from today's. Raises DeployError when there is none."""
        newest_first = sorted(self._list(target, "ALL"), key=lambda s: s["creationTimestamp"], reverse=True)
        revisions = (self.get(summary["deploymentId"]) for summary in newest_first)
        current = next(revisions, None)
        for revision in revisions:
            if current is not None and revision.components != current.components:
                return revision
        raise DeployError("there is no earlier deployment with other components")

    def get(self, deployment_id: str) -> Revision:
        found = self._greengrass.get_deployment(deploymentId=deployment_id)
        settings = {key: found[key] for key in KEPT if found.get(key)}
        return Revision(
            found["targetArn"],
            deployment_id,
            found.get("iotJobId", ""),
            found["deploymentStatus"],
            found.get("components", {}),
            settings,
        )

    def create(self, base: Revision, components: Components) -> Revision:
        """Deploys `components` with the settings of `base`, unless someone else has deployed since it was read."""
        if self.current(base.target).id != base.id:
            raise DeployError("someone else has deployed to this group meanwhile: look at the changes again")
        try:
            made = self._greengrass.create_deployment(targetArn=base.target, components=components, **base.settings)
        except (
            self._greengrass.exceptions.ValidationException,
            self._greengrass.exceptions.ResourceNotFoundException,
            self._greengrass.exceptions.ConflictException,
        ) as error:
            raise DeployError(error.response["Error"]["Message"]) from error
        return self.get(made["deploymentId"])

    def _list(self, target: str, history: str) -> list[dict[str, Any]]:
        pages = self._greengrass.get_paginator("list_deployments").paginate(targetArn=target, historyFilter=history)
        return [summary for page in pages for summary in page["deployments"]]


def merged(components: Components, versions: dict[str, str], removed: list[str], config: Components) -> Components:
    """`components` with new versions and configuration; what is not mentioned stays as it is.

    `config` maps a component to {"merge": {...}, "reset": [...]}, or to what is to be merged; it is added to what the
    deployment has of it, so that a device that joins later gets all of it. Raises DeployError.
    """
    result = copy.deepcopy(components)
    for name in removed:
        if result.pop(name, None) is None:
            raise DeployError(f"{name} is not in the deployment")
    for name, version in versions.items():
        result.setdefault(name, {})["componentVersion"] = version
    for name, wanted in config.items():
        if name not in result:
            raise DeployError(f"configuration for {name}, which is not in the deployment")
        update = wanted if wanted.keys() <= {"merge", "reset"} else {"merge": wanted}
        if combined := _combined(result[name].get("configurationUpdate", {}), update):
            result[name]["configurationUpdate"] = combined
    return result


def _combined(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """One configurationUpdate with the effect of both in turn. Devices reset first and merge then."""
    values = json.loads(old.get("merge", "{}"))
    for pointer in new.get("reset", []):
        values = _without(values, [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]])
    values = _deep_merged(values, new.get("merge", {}))
    resets = list(dict.fromkeys([*old.get("reset", []), *new.get("reset", [])]))
    return ({"merge": json.dumps(values)} if values else {}) | ({"reset": resets} if resets else {})


def _without(values: dict[str, Any], path: list[str]) -> dict[str, Any]:
    if not path:
        return {}
    kept = {key: value for key, value in values.items() if key != path[0]}
    below = values.get(path[0])
    return kept | {path[0]: _without(below, path[1:])} if len(path) > 1 and isinstance(below, dict) else kept


def _deep_merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Objects are merged key by key, anything else is replaced, as Greengrass does it on the device."""
    both = {key for key in old.keys() & new.keys() if isinstance(old[key], dict) and isinstance(new[key], dict)}
    return old | new | {key: _deep_merged(old[key], new[key]) for key in both}


def changes(old: Components, new: Components) -> list[tuple[str, str, str, str]]:
    """Rows of name, old version, new version, configuration: "" for same; only components that change."""
    rows = []
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name, {}), new.get(name, {})
        if before == after:
            continue
        configuration = after.get("configurationUpdate", {})
        text = json.dumps(configuration) if configuration != before.get("configurationUpdate", {}) else ""
        rows.append((name, before.get("componentVersion", ""), after.get("componentVersion", ""), text))
    return rows
