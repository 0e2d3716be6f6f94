"""What a device's certificate may do at AWS IoT, and what whoever installs devices may do."""

import json
from typing import Any

import pytest
import yaml

from edgeml.edge_impulse.device import device_name
from localdev.cloud import iam
from localdev.cloud.cloud import TEMPLATE
from localdev.cloud.template import Stack

AT = "arn:aws:iot:us-east-1:123456789012"
THING = "edgeml-press-1"
# What DeviceProvisioningHelper of aws-greengrass-nucleus does for --provision true, where all that it would make is
# there already. The role of token exchange has the name that --tes-role-name says.
INSTALLER = [
    ("iot:GetPolicy", f"{AT}:policy/edgeml-device"),
    ("iot:DescribeEndpoint", "*"),
    ("iot:CreateKeysAndCertificate", "*"),
    ("iot:AttachPolicy", f"{AT}:cert/0a1b"),
    ("iot:CreateThing", f"{AT}:thing/{THING}"),
    ("iot:AttachThingPrincipal", f"{AT}:cert/0a1b"),
    ("iot:DescribeThingGroup", f"{AT}:thinggroup/edgeml-devices"),
    ("iot:AddThingToThingGroup", f"{AT}:thing/{THING}"),
    ("iot:AddThingToThingGroup", f"{AT}:thinggroup/edgeml-devices"),
    ("iot:DescribeRoleAlias", f"{AT}:rolealias/edgeml-token-exchange"),
    ("iot:GetPolicy", f"{AT}:policy/GreengrassTESCertificatePolicyedgeml-token-exchange"),
    ("iam:GetPolicy", "arn:aws:iam::123456789012:policy/TokenExchangeRoleAccess"),
]
NOT_ITS_BUSINESS = [
    f"{AT}:policy/admin",
    f"{AT}:thing/payroll-1",
    f"{AT}:thinggroup/payroll",
    f"{AT}:rolealias/payroll",
    "arn:aws:iam::123456789012:policy/admin",
    "arn:aws:iam::123456789012:role/TokenExchangeRole",
]
NUCLEUS = [  # "Minimal AWS IoT policy for AWS IoT Greengrass V2 core devices"
    ("iot:Connect", f"{AT}:client/{THING}"),
    ("iot:Connect", f"{AT}:client/{THING}#2"),
    ("iot:Publish", f"{AT}:topic/$aws/things/{THING}/greengrassv2/health/json"),
    ("iot:Publish", f"{AT}:topic/$aws/things/{THING}/jobs/1/update"),
    ("iot:Receive", f"{AT}:topic/$aws/things/{THING}/jobs/notify-next"),
    ("iot:Subscribe", f"{AT}:topicfilter/$aws/things/{THING}/jobs/$next/get/accepted"),
    ("iot:Publish", f"{AT}:topic/$aws/things/{THING}/shadow/name/AWSManagedGreengrassV2Deployment/update"),
    ("iot:AssumeRoleWithCertificate", f"{AT}:rolealias/edgeml-token-exchange"),
    ("greengrass:GetComponentVersionArtifact", "*"),
    ("greengrass:GetDeploymentConfiguration", "*"),
    ("greengrass:ListThingGroupsForCoreDevice", "*"),
    ("greengrass:ResolveComponentCandidates", "*"),
]
OTHERS = [
    ("iot:Connect", f"{AT}:client/payroll-1"),
    ("iot:Publish", f"{AT}:topic/device/payroll-1/logs"),
    ("iot:Publish", f"{AT}:topic/$aws/things/payroll-1/shadow/update"),
    ("iot:Subscribe", f"{AT}:topicfilter/$aws/things/payroll-1/jobs/notify"),
    ("iot:Publish", f"{AT}:topic/edgeml/device/payroll-1/report"),
    ("iot:Publish", f"{AT}:topic/edgeml/device/{THING}/other"),
    ("iot:Publish", f"{AT}:topic/edgeml/device/{THING}/look"),
    ("iot:Subscribe", f"{AT}:topicfilter/edgeml/device/{THING}/look/reply"),
    ("iot:Subscribe", f"{AT}:topicfilter/edgeml/device/{THING}/report"),
    ("iot:Subscribe", f"{AT}:topicfilter/#"),
    ("iot:AssumeRoleWithCertificate", f"{AT}:rolealias/payroll"),
]


def of_certificates(stack: Stack) -> list[dict[str, Any]]:
    """The statements of both policies that the installer attaches."""
    policies = [stack.resources[name] for name in ("DevicePolicy", "TokenExchangePolicy")]
    return [statement for policy in policies for statement in policy.properties["PolicyDocument"]["Statement"]]


def granted_topics() -> list[tuple[str, str, str]]:
    """Component, operation and topic, as on a new device, of all that recipes let components do at AWS IoT Core."""
    rows = []
    for path in sorted((TEMPLATE.parents[1] / "recipes").glob("*.yaml")):
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
        defaults = recipe.get("ComponentConfiguration", {}).get("DefaultConfiguration", {})
        named = device_name(defaults.get("Parameters", {}).get("device_name", ""), "02:00:5e:10:00:01")
        for policy in defaults.get("accessControl", {}).get("aws.greengrass.ipc.mqttproxy", {}).values():
            for resource in policy["resources"]:
                topic = resource.replace("/+/", f"/{named}/").replace("*", THING, 1).replace("*", "any")
                rows += [(recipe["ComponentName"], operation, topic) for operation in policy["operations"]]
    return rows


@pytest.mark.parametrize(("component", "operation", "topic"), granted_topics())
def test_the_device_policy_lets_through_what_recipes_grant(
    stack: Stack, component: str, operation: str, topic: str
) -> None:
    needs = {
        "aws.greengrass#PublishToIoTCore": [("iot:Publish", f"{AT}:topic/{topic}")],
        "aws.greengrass#SubscribeToIoTCore": [
            ("iot:Subscribe", f"{AT}:topicfilter/{topic}"),
            ("iot:Receive", f"{AT}:topic/{topic}"),
        ],
    }
    assert all(iam.allowed(of_certificates(stack), need, {}) for need in needs[operation]), (
        f"{component} {operation} {topic}"
    )


@pytest.mark.parametrize(("need", "allowed"), [*((n, True) for n in NUCLEUS), *((n, False) for n in OTHERS)])
def test_a_device_speaks_for_things_of_this_stack(stack: Stack, need: iam.Need, allowed: bool) -> None:
    assert iam.allowed(of_certificates(stack), need, {}) is allowed


def test_another_prefix_is_another_fleet() -> None:
    presses = of_certificates(Stack(TEMPLATE, {"ThingPrefix": "press-"}))
    found = [iam.allowed(presses, ("iot:Connect", f"{AT}:client/{name}"), {}) for name in ("press-1", THING)]
    assert found == [True, False]


def test_policies_of_core_devices_have_no_variables_of_things(stack: Stack) -> None:
    assert "iot:Connection.Thing" not in json.dumps(of_certificates(stack))


def test_the_installer_may_do_each_of_its_steps_and_nothing_else(stack: Stack) -> None:
    granted = stack.resources["ProvisioningPolicy"].properties["PolicyDocument"]["Statement"]
    world = {resource for _, resource in INSTALLER}.union(NOT_ITS_BUSINESS)
    actions = {action for each in granted for action in as_list(each["Action"])}
    assert actions == {action for action, _ in INSTALLER}
    found = {(action, r) for action in actions for r in world if iam.allowed(granted, (action, r), {})}
    anywhere = {action for action, resource in INSTALLER if resource == "*"}
    assert {need for need in found if need[0] not in anywhere} == {n for n in INSTALLER if n[1] != "*"}


def test_the_installer_finds_what_it_would_make(stack: Stack) -> None:
    role, alias = stack.outputs["TokenExchangeRoleName"], stack.outputs["TokenExchangeRoleAliasName"]
    assert stack.resources["TokenExchangeAccess"].name == f"{role}Access"
    assert stack.outputs["TokenExchangePolicyName"] == f"GreengrassTESCertificatePolicy{alias}"
    assert stack.resources["TokenExchangeRoleAlias"].properties["RoleArn"] == stack.resources["TokenExchangeRole"].arn
    assert stack.outputs["DevicePolicyName"] == stack.resources["DevicePolicy"].name
    assert stack.outputs["ProvisioningPolicyArn"] == stack.resources["ProvisioningPolicy"].arn


def as_list(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


LOOKER = [
    ("iot:DescribeEndpoint", "*", True),
    ("iot:Connect", f"{AT}:client/look-0a1b", True),
    ("iot:Connect", f"{AT}:client/{THING}", False),
    ("iot:Publish", f"{AT}:topic/edgeml/device/{THING}/look", True),
    ("iot:Publish", f"{AT}:topic/edgeml/device/{THING}/look/reply", False),
    ("iot:Publish", f"{AT}:topic/edgeml/device/{THING}/report", False),
    ("iot:Publish", f"{AT}:topic/edgeml/device/payroll-1/look", False),
    ("iot:Subscribe", f"{AT}:topicfilter/edgeml/device/{THING}/look/reply", True),
    ("iot:Receive", f"{AT}:topic/edgeml/device/{THING}/look/reply", True),
    ("iot:Subscribe", f"{AT}:topicfilter/edgeml/device/#", False),
    ("s3:GetObject", "arn:aws:s3:::edgeml-data-123456789012-us-east-1/look/edgeml-press-1/a/door.jpg", True),
    ("s3:GetObject", "arn:aws:s3:::edgeml-data-123456789012-us-east-1/faces/edgeml-press-1/1.jpg", False),
    ("s3:ListBucket", "arn:aws:s3:::edgeml-data-123456789012-us-east-1", False),
]


@pytest.mark.parametrize(("action", "resource", "allowed"), LOOKER)
def test_who_looks_asks_devices_of_this_stack_and_reads_their_answers(
    stack: Stack, action: str, resource: str, allowed: bool
) -> None:
    statements = stack.resources["LookPolicy"].properties["PolicyDocument"]["Statement"]
    assert iam.allowed(statements, (action, resource), {}) is allowed
