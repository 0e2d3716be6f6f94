"""A thing group in a local cloud's greengrassv2, and the function that changes its deployment."""

import json
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from localdev.cloud import LocalCloud
from ota_support import load_handler
from update_deployment_support import NAME


@pytest.fixture(scope="module")
def local() -> Iterator[LocalCloud]:
    with LocalCloud() as running:
        running.aws.client("iot").create_thing_group(thingGroupName="devices")
        yield running


@pytest.fixture(params=["CANCELED", "INACTIVE"])  # what AWS calls a deployment that a newer one replaced
def gg(local: LocalCloud, request: pytest.FixtureRequest) -> Iterator[Any]:
    """The greengrassv2 API with two versions of the model and one of the inferencer."""
    local.greengrass.superseded = request.param
    client = local.aws.client("greengrassv2")
    for name, version in ((NAME, "1.0.0"), (NAME, "2.0.0"), ("edgeml.Inferencer", "1.0.0")):
        recipe = {
            "RecipeFormatVersion": "2020-01-25",
            "ComponentName": name,
            "ComponentVersion": version,
            "Manifests": [{}],
        }
        client.create_component_version(inlineRecipe=json.dumps(recipe).encode())
    yield client
    local.greengrass.on_deployment.clear()
    local.greengrass.forget()


@pytest.fixture
def arn(local: LocalCloud) -> str:
    return str(local.aws.client("iot").describe_thing_group(thingGroupName="devices")["thingGroupArn"])


@pytest.fixture
def app(local: LocalCloud, arn: str) -> ModuleType:
    return load_handler("update_deployment", {**local.environment(), "THING_GROUP_ARN": arn, "COMPONENT_WAIT_S": "3"})
