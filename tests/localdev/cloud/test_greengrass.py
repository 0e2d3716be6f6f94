import base64
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from localdev.cloud import LocalCloud

GROUP = "arn:aws:iot:us-east-1:123456789012:thinggroup/g"
COMPONENTS = "arn:aws:greengrass:us-east-1:123456789012:components"


@pytest.fixture(scope="module")
def running_cloud() -> Iterator[LocalCloud]:
    with LocalCloud() as cloud:
        cloud.aws.client("s3").create_bucket(Bucket="artifacts")
        cloud.aws.client("s3").put_object(Bucket="artifacts", Key="a.zip", Body=b"zip")
        iot = cloud.aws.client("iot")
        iot.create_thing_group(thingGroupName="g")
        for thing in ("t1", "t2", "t3"):
            iot.create_thing(thingName=thing)
            iot.add_thing_to_thing_group(thingGroupName="g", thingName=thing)
        yield cloud


@pytest.fixture
def cloud(running_cloud: LocalCloud) -> LocalCloud:
    running_cloud.greengrass.forget()
    return running_cloud


@pytest.fixture
def client(cloud: LocalCloud) -> Any:
    return cloud.aws.client("greengrassv2")


def recipe(version: str = "1.0.0", **changes: Any) -> bytes:
    manifest = {"Artifacts": [{"Uri": "s3://artifacts/a.zip"}]}
    made = {"RecipeFormatVersion": "2020-01-25", "ComponentName": "edgeml.A", "ComponentVersion": version}
    return json.dumps(made | {"Manifests": [manifest]} | changes).encode()


def test_a_component_version_is_made_once_and_its_artifacts_get_digests(client: Any) -> None:
    made = client.create_component_version(inlineRecipe=recipe())
    assert made["arn"] == f"{COMPONENTS}:edgeml.A:versions:1.0.0"
    assert client.describe_component(arn=made["arn"])["status"]["componentState"] == "DEPLOYABLE"
    with pytest.raises(client.exceptions.ConflictException, match="already exists"):
        client.create_component_version(inlineRecipe=recipe())
    client.delete_component(arn=made["arn"])
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.describe_component(arn=made["arn"])


def test_a_recipe_comes_back_with_what_it_left_out(client: Any) -> None:
    dependency = {"edgeml.B": {"VersionRequirement": "^1.0.0"}}
    made = client.create_component_version(inlineRecipe=recipe(ComponentDependencies=dependency))
    found = json.loads(client.get_component(arn=made["arn"], recipeOutputFormat="JSON")["recipe"])
    assert found == {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": "edgeml.A",
        "ComponentVersion": "1.0.0",
        "ComponentType": "aws.greengrass.generic",
        "ComponentDependencies": {"edgeml.B": {"VersionRequirement": "^1.0.0", "DependencyType": "HARD"}},
        "Manifests": [
            {
                "Lifecycle": {},
                "Artifacts": [
                    {
                        "Uri": "s3://artifacts/a.zip",
                        "Digest": base64.b64encode(hashlib.sha256(b"zip").digest()).decode(),
                        "Algorithm": "SHA-256",
                        "Unarchive": "NONE",
                        "Permission": {"Read": "OWNER", "Execute": "NONE"},
                    }
                ],
            }
        ],
        "Lifecycle": {},
    }


def test_the_components_of_aws_are_there(client: Any) -> None:
    arn = "arn:aws:greengrass:us-east-1:aws:components:aws.greengrass.Cli:versions:2.12.0"
    assert client.describe_component(arn=arn)["componentVersion"] == "2.12.0"
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.describe_component(arn=f"{COMPONENTS}:aws.greengrass.Cli:versions:2.12.0")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"RecipeFormatVersion": "1"}, "RecipeFormatVersion"),
        ({"ComponentName": "a b"}, "ComponentName"),
        ({"ComponentVersion": "1.0"}, "ComponentVersion"),
        ({"Manifests": []}, "no Manifests"),
        ({"Manifests": [{"Artifacts": [{"Uri": "s3://artifacts/absent.zip"}]}]}, "cannot be accessed"),
        ({"Manifests": [{"Artifacts": [{"Uri": "s3://BUCKET_NAME/a.zip"}]}]}, "cannot be accessed"),
        ({"ComponentDescription": "x" * 16_000}, "16000 are allowed"),
    ],
)
def test_recipes_are_checked(client: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(client.exceptions.ValidationException, match=message):
        client.create_component_version(inlineRecipe=recipe(**changes))


def test_versions_are_listed_newest_first_in_pages(client: Any) -> None:
    for version in ("1.9.0", "1.10.0", "1.2.0"):
        client.create_component_version(inlineRecipe=recipe(version))
    pages = client.get_paginator("list_component_versions").paginate(
        arn=f"{COMPONENTS}:edgeml.A", PaginationConfig={"PageSize": 2}
    )
    found = [[item["componentVersion"] for item in page["componentVersions"]] for page in pages]
    assert found == [["1.10.0", "1.9.0"], ["1.2.0"]]
    assert [c["componentName"] for c in client.list_components()["components"]] == ["edgeml.A"]


def deploy(client: Any, version: str = "2.12.0", **more: Any) -> str:
    components = {"aws.greengrass.Nucleus": {"componentVersion": version}}
    return str(client.create_deployment(targetArn=GROUP, components=components, **more)["deploymentId"])


def test_a_deployment_reaches_the_things_of_its_group(cloud: LocalCloud, client: Any) -> None:
    deployment = deploy(client, deploymentName="first")
    cloud.greengrass.report(deployment, "t2", "SUCCEEDED")
    (effective,) = client.list_effective_deployments(coreDeviceThingName="t2")["effectiveDeployments"]
    assert (effective["deploymentName"], effective["coreDeviceExecutionStatus"]) == ("first", "SUCCEEDED")
    iot, job = cloud.aws.client("iot"), client.get_deployment(deploymentId=deployment)["iotJobId"]
    executions = iot.list_job_executions_for_job(jobId=job, status="QUEUED")["executionSummaries"]
    assert [e["thingArn"].rpartition("/")[2] for e in executions] == ["t1", "t3"]
    described = iot.describe_job(jobId=job)["job"]
    assert (described["targets"], described["status"]) == ([GROUP], "IN_PROGRESS")
    counts = {name: count for name, count in described["jobProcessDetails"].items() if count}
    assert counts == {"numberOfQueuedThings": 2, "numberOfSucceededThings": 1}


def test_a_newer_deployment_replaces_the_older(cloud: LocalCloud, client: Any) -> None:
    first = deploy(client)
    cloud.greengrass.report(first, "t1", "IN_PROGRESS")
    second = deploy(client, "2.13.0")
    assert cloud.greengrass.deployments[0].executions == {"t1": "IN_PROGRESS", "t2": "CANCELED", "t3": "CANCELED"}
    job = cloud.aws.client("iot").describe_job(jobId=cloud.greengrass.deployments[0].job_id)["job"]
    assert job["status"] == "CANCELED"
    (latest,) = client.list_deployments(targetArn=GROUP)["deployments"]
    assert (latest["deploymentId"], latest["revisionId"], latest["isLatestForTarget"]) == (second, "2", True)
    assert client.get_deployment(deploymentId=first)["deploymentStatus"] == "CANCELED"
    pages = client.get_paginator("list_deployments").paginate(
        targetArn=GROUP, historyFilter="ALL", PaginationConfig={"PageSize": 1}
    )
    assert [d["deploymentId"] for page in pages for d in page["deployments"]] == [second, first]


def test_a_deployment_can_be_cancelled_once(cloud: LocalCloud, client: Any) -> None:
    deployment = deploy(client)
    cloud.greengrass.report(deployment, "t1", "SUCCEEDED")
    client.cancel_deployment(deploymentId=deployment)
    assert client.get_deployment(deploymentId=deployment)["deploymentStatus"] == "CANCELED"
    statuses = [
        client.list_effective_deployments(coreDeviceThingName=thing)["effectiveDeployments"][0]
        for thing in ("t1", "t2")
    ]
    assert [status["coreDeviceExecutionStatus"] for status in statuses] == ["SUCCEEDED", "CANCELED"]
    with pytest.raises(client.exceptions.ConflictException):
        client.cancel_deployment(deploymentId=deployment)


@pytest.mark.parametrize(
    ("target", "component", "message"),
    [
        ("arn:aws:iot:us-east-1:123456789012:thinggroup/none", {"componentVersion": "1.0.0"}, "none does not exist"),
        ("thing", {"componentVersion": "1.0.0"}, "Invalid targetArn"),
        (GROUP, {"componentVersion": "latest"}, "not a semantic version"),
        (GROUP, {"componentVersion": "1.0.0", "configurationUpdate": {"merge": "[1]"}}, "not a JSON object"),
    ],
)
def test_deployments_are_checked(client: Any, target: str, component: dict[str, Any], message: str) -> None:
    with pytest.raises(ClientError, match=message):
        client.create_deployment(targetArn=target, components={"aws.greengrass.Nucleus": component})


def test_a_version_that_does_not_exist_is_for_devices_to_find(client: Any) -> None:
    client.create_deployment(targetArn=GROUP, components={"edgeml.None": {"componentVersion": "1.0.0"}})


def test_an_operation_that_is_missing_says_so(client: Any) -> None:
    with pytest.raises(ClientError, match="is not implemented here"):
        client.get_core_device(coreDeviceThingName="t1")
