"""The token-exchange role: what the code of each component asks of AWS, there where it asks it, and nothing else."""

import re
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml
from botocore import xform_name

from camera_capture.camera import Clips, Snapshots, Stills
from inferencer.sinks.crops import Crops
from localdev.cloud import iam
from localdev.cloud.cloud import TEMPLATE
from localdev.cloud.template import ROOT, Stack
from log_shipper.config import Config as LogShipper
from source_support import after_name, called, calls, first_word, imports, parsed

AT = "us-east-1:123456789012"
DATA, RESULTS, MODELS, COMPONENTS = (
    f"arn:aws:s3:::edgeml-{kind}-123456789012-us-east-1" for kind in ("data", "results", "models", "components")
)
GROUP = LogShipper().log_group.format(componentType="UserComponent", region="us-east-1", componentName="edgeml.A")
LOGS = f"arn:aws:logs:{AT}:log-group:{GROUP}:log-stream:"
STREAM = LOGS + LogShipper().log_stream.format(date="2026/11/21", thingName="press-1")
EDGE_IMPULSE = f"arn:aws:secretsmanager:{AT}:secret:EI_API_KEY-a1B2c3"
INFERENCER = f"arn:aws:secretsmanager:{AT}:secret:live-inference-a1B2c3"
CAMERAS = f"arn:aws:secretsmanager:{AT}:secret:edgeml-cameras-a1B2c3"
MONITOR = f"arn:aws:secretsmanager:{AT}:secret:edgeml-monitor-a1B2c3"
ENDPOINT = f"arn:aws:sagemaker:{AT}:endpoint/edgeml-duration"
MINE = {
    "nucleus": {  # S3Downloader of aws-greengrass-nucleus
        "s3:GetObject": {f"{COMPONENTS}/edgeml.A/1.0.0/a.zip", f"{COMPONENTS}/edgeml.model.A/1.0.0/bundle.zip"},
        "s3:GetBucketLocation": {COMPONENTS},
    },
    "edgeml.CameraCapture": {
        "s3:PutObject": {
            f"{DATA}/{Snapshots().s3_prefix}/press-1/cam/1.jpg",
            f"{DATA}/{Clips(s3_bucket='data').s3_prefix}/press-1/2026/11/21/1-0.mp4",
            f"{DATA}/{Stills(s3_bucket='data').s3_prefix}/press-1/2026/11/21/1-0.jpg",
        },
        "secretsmanager:GetSecretValue": {CAMERAS},
    },
    "edgeml.Inferencer": {
        "s3:PutObject": {f"{DATA}/{Crops().prefix}/press-1/2026/11/21/1-0.jpg"},
        "sagemaker:InvokeEndpoint": {ENDPOINT},
        "secretsmanager:GetSecretValue": {INFERENCER},
    },
    "edgeml.EdgeImpulseRunner": {
        "s3:PutObject": {f"{RESULTS}/Bottles_v3/1.img"},
        "s3:DeleteObject": {f"{RESULTS}/Bottles_v3/1.img"},
        "secretsmanager:GetSecretValue": {EDGE_IMPULSE},
    },
    "edgeml.EdgeImpulseLinux": {"secretsmanager:GetSecretValue": {EDGE_IMPULSE}},
    "edgeml.Monitor": {
        "s3:PutObject": {f"{DATA}/look/press-1/0123456789abcdef/state.json"},
        "secretsmanager:GetSecretValue": {MONITOR},
    },
    "edgeml.LogShipper": {
        "logs:PutLogEvents": {STREAM},
        **{
            f"logs:{operation}": {LOGS, STREAM}
            for operation in ("CreateLogGroup", "CreateLogStream", "PutRetentionPolicy")
        },
    },
}
FOREIGN = {
    *(DATA, f"{DATA}/samples/1", f"{DATA}/samples-failed/1", f"{DATA}/other/1.jpg", f"{DATA}/Bottles_v3/1.img"),
    *(RESULTS, MODELS, f"{MODELS}/a/job.json", f"{MODELS}/training/a", f"{MODELS}/source/training.zip"),
    *("arn:aws:s3:::edgeml-other", "arn:aws:s3:::edgeml-other/faces/1.jpg"),
    *(f"arn:aws:sagemaker:{AT}:endpoint/payroll", f"arn:aws:sagemaker:{AT}:model-package/edgeml-models/1"),
    *(f"arn:aws:secretsmanager:{AT}:secret:{name}-a1B2c3" for name in ("EI_API_KEY_2", "live-inference-2", "signing")),
    *(f"arn:aws:logs:{AT}:log-group:{name}:log-stream:" for name in ("/edgeml/turbine", "/aws/lambda/a")),
}
PRESS_1 = {"credentials-iot:ThingName": "press-1"}  # both nuclei send it, and AWS compares it with the certificate
WORLD = FOREIGN.union(*(resources for needs in MINE.values() for resources in needs.values()))


@pytest.fixture(scope="module")
def granted() -> dict[str, list[dict[str, Any]]]:
    """Statements by component; those of the nucleus have a policy of their own."""
    stack = Stack(TEMPLATE)
    role, access = (stack.resources[name] for name in ("TokenExchangeRole", "TokenExchangeAccess"))
    assert access.properties["Roles"] == [role.name]
    policies = [*role.properties["Policies"], {"PolicyName": "nucleus", **access.properties}]
    return {policy["PolicyName"]: policy["PolicyDocument"]["Statement"] for policy in policies}


def operations() -> dict[str, str]:
    """IAM actions by method of boto3's clients."""
    session = botocore.session.get_session()
    return {
        xform_name(operation): f"{service.removesuffix('-runtime')}:{operation}"
        for service in ("s3", "secretsmanager", "sagemaker-runtime")
        for operation in session.get_service_model(service).operation_names
    }


def asked(package: Path, known: dict[str, str]) -> set[str]:
    """The AWS actions in a component's code and in those modules of edgeml that it imports."""
    files = sorted(package.rglob("*.py"))
    imported = {name for path in files for name in imports(parsed(path))}
    files += [
        ROOT / "components" / "edgeml" / f"{name}.py" for name in ("s3", "secrets") if f"edgeml.{name}" in imported
    ]
    found = set()
    for tree in map(parsed, files):
        made = [(called(call), first_word(call)) for call in calls(tree)]
        names = {name for name, _ in made} | {word for name, word in made if name == "call"}
        found |= {known[name] for name in names if name in known}
        logs = {*after_name(tree, "_API"), *(word for name, word in made if name == "_call")}
        found |= {f"logs:{name}" for name in logs if name}
    return found


def test_the_role_grants_what_the_code_of_each_component_calls(granted: dict[str, list[dict[str, Any]]]) -> None:
    known = operations()
    found = {}
    for recipe in sorted((ROOT / "recipes").glob("*.yaml")):
        name = yaml.safe_load(recipe.read_text(encoding="utf-8"))["ComponentName"]
        if actions := asked(ROOT / "components" / recipe_package(name), known):
            found[name] = actions
    assert found == {name: set(needs) for name, needs in MINE.items() if name != "nucleus"}
    assert {name: actions_of(statements) for name, statements in granted.items()} == {
        name: set(needs) for name, needs in MINE.items()
    }


@pytest.mark.parametrize("component", MINE)
def test_each_component_reaches_its_own_and_nothing_else(
    granted: dict[str, list[dict[str, Any]]], component: str
) -> None:
    for action in set().union(*MINE.values()):
        allowed = {resource for resource in WORLD if iam.allowed(granted[component], (action, resource), PRESS_1)}
        assert allowed == MINE[component].get(action, set()), action


@pytest.mark.parametrize("other", ["press-2", "press-10", "press", "*", "press-1/x", ""])
def test_a_device_reaches_nothing_of_another_one(granted: dict[str, list[dict[str, Any]]], other: str) -> None:
    statements = [statement for policy in granted.values() for statement in policy]
    theirs = {
        "s3:PutObject": [f"{DATA}/{kind}/{other}/1.jpg" for kind in ("faces", "snapshots", "clips", "look")],
        "logs:PutLogEvents": [STREAM.replace("press-1", other)],
    }
    for action, places in theirs.items():
        for place in places:
            if place != f"{DATA}/faces/press-1/x/1.jpg" and "/press-1/" not in place:
                assert not iam.allowed(statements, (action, place), PRESS_1), place
    for action in ("s3:GetObject", "s3:ListBucket", "s3:DeleteObject", "logs:GetLogEvents", "logs:FilterLogEvents"):
        for place in (f"{DATA}/faces/{other}/1.jpg", DATA, STREAM):
            assert not iam.allowed(statements, (action, place), PRESS_1), (action, place)


def test_who_has_no_name_reaches_nothing_that_belongs_to_a_thing(granted: dict[str, list[dict[str, Any]]]) -> None:
    statements = [statement for policy in granted.values() for statement in policy]
    for need in (("s3:PutObject", f"{DATA}/faces//1.jpg"), ("logs:PutLogEvents", STREAM)):
        assert not iam.allowed(statements, need, {})


def test_no_device_makes_metrics(granted: dict[str, list[dict[str, Any]]]) -> None:
    statements = [statement for policy in granted.values() for statement in policy]
    assert not iam.allowed(statements, ("cloudwatch:PutMetricData", "*"), PRESS_1)


def test_endpoints_of_the_project_can_be_asked(granted: dict[str, list[dict[str, Any]]]) -> None:
    need = ("sagemaker:InvokeEndpoint", f"arn:aws:sagemaker:{AT}:endpoint/edgeml-faces")
    assert iam.allowed(granted["edgeml.Inferencer"], need, {})


def recipe_package(component: str) -> str:
    """edgeml.CameraCapture -> camera_capture"""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", component.removeprefix("edgeml.")).lower()


def actions_of(statements: list[dict[str, Any]]) -> set[str]:
    return {
        action
        for statement in statements
        for action in (statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]])
    }
