"""update_deployment against the local cloud's greengrassv2 stand-in."""

import json
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from localdev.cloud import LocalCloud
from localdev.cloud.aws import Request, Response
from ota_support import load_handler
from update_deployment_support import COMPONENTS, NAME, deploy, handled, latest

POLICIES = {
    "failureHandlingPolicy": "DO_NOTHING",
    "componentUpdatePolicy": {"timeoutInSeconds": 30, "action": "NOTIFY_COMPONENTS"},
}


def test_one_version_changes_and_everything_else_stays(gg: Any, arn: str, app: ModuleType) -> None:
    base = deploy(gg, arn, deploymentName="plant", deploymentPolicies=POLICIES, tags={"team": "edge"})
    answer = handled(app)
    found = latest(gg, arn)
    assert answer == {"status": "created", "deployment": found["deploymentId"]}
    assert found["components"] == {**COMPONENTS, NAME: {**COMPONENTS[NAME], "componentVersion": "2.0.0"}}
    assert (found["deploymentName"], found["tags"]) == ("plant", {"team": "edge", "edgeml:seen": base})
    assert found["deploymentPolicies"] == {**POLICIES, "failureHandlingPolicy": "ROLLBACK"}
    (abort,) = found["iotJobConfiguration"]["abortConfig"]["criteriaList"]
    assert (abort["action"], abort["thresholdPercentage"]) == ("CANCEL", 10)
    assert found["iotJobConfiguration"]["timeoutConfig"] == {"inProgressTimeoutInMinutes": 120}


def test_an_event_twice_makes_one_deployment(gg: Any, arn: str, app: ModuleType) -> None:
    deploy(gg, arn)
    first = handled(app)
    assert handled(app) == {"status": "unchanged", "deployment": first["deployment"]}


def test_an_approval_of_a_base_that_came_back_is_made_again(gg: Any, arn: str, app: ModuleType) -> None:
    base = deploy(gg, arn)
    first = handled(app)
    gg.cancel_deployment(deploymentId=first["deployment"])  # somebody takes it back ...
    second = handled(app)  # ... and approves the same version of the same base again
    assert second["status"] == "created"
    assert second["deployment"] not in (base, first["deployment"]), "AWS's remembered answer would be the first one"
    assert latest(gg, arn)["deploymentId"] == second["deployment"]


def test_tags_of_aws_itself_are_not_copied(local: LocalCloud, gg: Any, arn: str, app: ModuleType) -> None:
    deploy(gg, arn, tags={"team": "edge"})
    local.greengrass.deployments[-1].request["tags"]["aws:cloudformation:stack-name"] = "plant"
    assert handled(app)["status"] == "created"
    assert set(latest(gg, arn)["tags"]) == {"team", "edgeml:seen"}


def test_the_only_deployment_was_cancelled(gg: Any, arn: str, app: ModuleType) -> None:
    gg.cancel_deployment(deploymentId=deploy(gg, arn))
    answer = handled(app)
    assert (answer["status"], "the only deployment" in answer["reason"]) == ("refused", True)


def test_pages_are_read_to_the_end(local: LocalCloud, gg: Any, arn: str, app: ModuleType) -> None:
    for _ in range(60):
        deploy(gg, arn)
    before = len(local.greengrass.deployments)
    assert handled(app)["status"] == "created"
    assert len(local.greengrass.deployments) == before + 1, "none of the earlier ones was taken for a new one"


def test_without_a_deployment_nothing_is_made(gg: Any, arn: str, app: ModuleType) -> None:
    answer = handled(app)
    assert (answer["status"], "no deployment for" in answer["reason"]) == ("refused", True)
    assert gg.list_deployments(targetArn=arn, historyFilter="ALL")["deployments"] == []


def test_a_model_that_is_not_deployed_is_not_added(gg: Any, arn: str, app: ModuleType) -> None:
    made = deploy(gg, arn, {"edgeml.Inferencer": COMPONENTS["edgeml.Inferencer"]})
    assert "is not part of deployment" in handled(app)["reason"]
    assert latest(gg, arn)["deploymentId"] == made


@pytest.mark.parametrize(
    ("name", "version", "reason"),
    [
        (NAME, "9.9.9", "no component edgeml.model.WindTurbine 9.9.9"),
        ("aws.greengrass.Nucleus", "2.0.0", "not a version of a model component"),
        (NAME, "latest", "not a version of a model component"),
        (None, None, "not a version of a model component"),
    ],
)
def test_what_does_not_exist_is_refused(
    gg: Any, arn: str, app: ModuleType, name: str, version: str, reason: str
) -> None:
    made = deploy(gg, arn)
    answer = handled(app, {"component_name": name, "component_version": version})
    assert (answer["status"], reason in answer["reason"]) == ("refused", True)
    assert latest(gg, arn)["deploymentId"] == made


def state(name: str, message: str = "") -> Response:
    return Response(json.dumps({"status": {"componentState": name, "message": message}}).encode())


@pytest.fixture
def states(local: LocalCloud) -> Iterator[list[Response]]:
    """The next answers to DescribeComponent."""
    answers: list[Response] = []

    def describe(request: Request) -> Response | None:
        mine = request.service == "greengrass" and request.method == "GET" and "/components/" in request.path
        return answers.pop(0) if mine and answers else None

    local.aws.stand_ins.insert(0, describe)
    yield answers
    local.aws.stand_ins.remove(describe)


def test_a_version_that_is_being_made_is_waited_for(gg: Any, arn: str, app: ModuleType, states: list[Response]) -> None:
    deploy(gg, arn)
    states.append(state("REQUESTED"))
    assert handled(app)["status"] == "created"


def test_a_version_that_could_not_be_made_is_refused(
    gg: Any, arn: str, app: ModuleType, states: list[Response]
) -> None:
    deploy(gg, arn)
    states.append(state("FAILED", "artifact gone"))
    assert "is FAILED: artifact gone" in handled(app)["reason"]


def test_a_version_that_takes_longer_is_left_to_a_retry(
    local: LocalCloud, gg: Any, arn: str, states: list[Response]
) -> None:
    deploy(gg, arn)
    environment = {**local.environment(), "THING_GROUP_ARN": arn, "COMPONENT_WAIT_S": "0"}
    app = load_handler("update_deployment", environment)
    states.extend([state("INITIATED"), state("INITIATED")])
    with pytest.raises(app.NotReady, match="is INITIATED after 0 s"):
        handled(app)
    states.clear()
    assert handled(app)["status"] == "created"


def test_what_was_cancelled_is_not_built_upon(gg: Any, arn: str, app: ModuleType) -> None:
    deploy(gg, arn)
    cancelled = deploy(gg, arn, {**COMPONENTS, "aws.greengrass.Nucleus": {"componentVersion": "9.9.9"}})
    gg.cancel_deployment(deploymentId=cancelled)
    assert handled(app)["status"] == "created"
    found = latest(gg, arn)["components"]
    assert found == {**COMPONENTS, NAME: {**COMPONENTS[NAME], "componentVersion": "2.0.0"}}


def test_a_cancelled_update_is_made_again(gg: Any, arn: str, app: ModuleType) -> None:
    deploy(gg, arn)
    first = handled(app)["deployment"]
    gg.cancel_deployment(deploymentId=first)
    assert handled(app) != {"status": "unchanged", "deployment": first}
    assert latest(gg, arn)["components"][NAME]["componentVersion"] == "2.0.0"
