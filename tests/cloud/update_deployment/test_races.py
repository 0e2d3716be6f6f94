"""update_deployment, while somebody else changes the same deployment or an earlier try of its own was cut short."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from localdev.cloud import LocalCloud
from localdev.cloud.aws import Request, Response
from update_deployment_support import COMPONENTS, NAME, NUCLEUS, deploy, handled, latest


def intruder(local: LocalCloud, change: Callable[[dict[str, Any]], dict[str, Any]], times: int) -> None:
    """Someone else deploys at the same moment as we do, from what they read before."""
    greengrass = local.greengrass

    def deployed(ours: Any) -> None:
        nonlocal times
        if times > 0:
            times -= 1
            theirs = dict(greengrass.deployments[-2].request)
            theirs.pop("clientToken", None)  # whoever deploys from the console has one of their own
            theirs["components"] = change(dict(theirs["components"]))
            greengrass.on_deployment.remove(deployed)
            greengrass.create_deployment(theirs)
            greengrass.on_deployment.append(deployed)

    greengrass.on_deployment.append(deployed)


def test_a_change_at_the_same_moment_is_not_lost(local: LocalCloud, gg: Any, arn: str, app: ModuleType) -> None:
    deploy(gg, arn)

    def without_nucleus(components: dict[str, Any]) -> dict[str, Any]:
        components.pop("aws.greengrass.Nucleus")
        return components

    intruder(local, without_nucleus, times=1)
    assert handled(app)["status"] == "created"
    found = latest(gg, arn)["components"]
    assert found[NAME]["componentVersion"] == "2.0.0", "our change is there"
    assert "aws.greengrass.Nucleus" not in found, "and theirs is"


@pytest.mark.parametrize("read", [1, 2, 3])
def test_a_change_right_after_one_of_our_reads_is_not_lost(
    local: LocalCloud, gg: Any, arn: str, app: ModuleType, read: int
) -> None:
    deploy(gg, arn)
    reads = 0

    def watch(request: Request, _: Response) -> None:
        nonlocal reads
        reads += (request.service, request.method) == ("greengrass", "GET")
        if reads == read:
            local.aws.observers.remove(watch)
            theirs = {"targetArn": arn, "components": {NAME: COMPONENTS[NAME], "aws.greengrass.Cli": NUCLEUS}}
            local.greengrass.create_deployment(theirs)

    local.aws.observers.append(watch)
    assert handled(app)["status"] == "created"
    assert reads == read, "it happened"
    found = latest(gg, arn)["components"]
    assert found == {NAME: {**COMPONENTS[NAME], "componentVersion": "2.0.0"}, "aws.greengrass.Cli": NUCLEUS}


def test_a_retry_after_a_crash_sees_what_came_between(
    local: LocalCloud, gg: Any, arn: str, app: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = deploy(gg, arn)
    create = app.create

    def crash(*arguments: Any) -> str:
        theirs = {"targetArn": arn, "components": {NAME: COMPONENTS[NAME], "aws.greengrass.Cli": NUCLEUS}}
        local.greengrass.create_deployment(theirs)
        create(*arguments)
        raise TimeoutError

    monkeypatch.setattr(app, "create", crash)
    with pytest.raises(TimeoutError):
        handled(app)
    monkeypatch.undo()
    assert latest(gg, arn)["tags"]["edgeml:seen"] == base, "theirs is overwritten"
    assert handled(app)["status"] == "created"
    found = latest(gg, arn)["components"]
    assert found == {NAME: {**COMPONENTS[NAME], "componentVersion": "2.0.0"}, "aws.greengrass.Cli": NUCLEUS}
    assert handled(app)["status"] == "unchanged"


def test_changes_without_end_are_an_error(local: LocalCloud, gg: Any, arn: str, app: ModuleType) -> None:
    deploy(gg, arn)
    intruder(local, dict, times=100)
    with pytest.raises(app.ConcurrentChange):
        handled(app)
