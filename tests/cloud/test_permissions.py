"""What the handlers ask of AWS is what their roles in the template grant, no less and no more."""

import json
import os
import subprocess
import sys
import uuid
from base64 import b64encode
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest

from cloud_support import Faults, error, sample
from localdev.cloud import LocalCloud, iam
from localdev.cloud.aws import ACCOUNT, REGION, Response
from localdev.cloud.builds import GUARDED
from localdev.cloud.greengrass import Deployment
from localdev.cloud.iot_jobs import IotJobs
from localdev.cloud.lambdas import FunctionError

OWN = {"logs:CreateLogStream", "logs:PutLogEvents", "sqs:SendMessage"}  # Lambda's, in the name of every function
OWN |= {
    "dynamodb:GetItem"
}  # Powertools' idempotency reads when DynamoDB does not return the item it refused to replace
AT = f"{REGION}:{ACCOUNT}"
DATA, MODELS = (f"arn:aws:s3:::edgeml-{kind}-{ACCOUNT}-{REGION}" for kind in ("data", "models"))
TURBINE = f"arn:aws:logs:{AT}:log-group:/edgeml/turbine"
GROUP = f"arn:aws:iot:{AT}:thinggroup/edgeml-devices"
WHERE = {  # each handler works
    "RekognizeEmotions": {DATA, f"{DATA}/faces/*", f"arn:aws:dynamodb:{AT}:table/rekognize-faces"},
    "IngestEdgeLogs": {f"{TURBINE}:*"},
    "CollectSample": {
        f"arn:aws:firehose:{AT}:deliverystream/SampleStream",
        f"arn:aws:dynamodb:{AT}:table/IdempotencyTable",
    },
    "LiveInference": {f"arn:aws:sagemaker:{AT}:endpoint/edgeml-duration"},
    "CreateIotJob": {
        MODELS,
        f"{MODELS}/*",
        f"arn:aws:iot:{AT}:job/*",
        GROUP,
        f"arn:aws:iam::{ACCOUNT}:role/ModelUrlRole",
    },
    "UpdateDeployment": {
        f"arn:aws:greengrass:{AT}:components:edgeml.model.*",
        f"arn:aws:greengrass:{AT}:deployments:*",
        f"arn:aws:iot:{AT}:job/*",
        f"arn:aws:iot:{AT}:thing/edgeml-*",
        GROUP,
    },
}
NEAR = {
    *(f"{DATA}/{prefix}/1" for prefix in ("snapshots", "samples", "faces2")),
    *(
        f"arn:aws:s3:::edgeml-components-{REGION}-{ACCOUNT}",
        f"arn:aws:s3:::edgeml-other-{ACCOUNT}-{REGION}/faces/1.jpg",
    ),
    f"arn:aws:greengrass:{AT}:components:edgeml.A:1",
    f"arn:aws:logs:{AT}:log-group:/edgeml/codebuild/export_model:log-stream:1",
}
WORLD = NEAR | {pattern.replace("*", "1") for patterns in WHERE.values() for pattern in patterns}
WORLD |= {arn + "2" for arn in WORLD} | {arn.replace(REGION, "eu-west-1") for arn in WORLD}
WORLD |= {arn.replace(ACCOUNT, "999999999999") for arn in WORLD}
OPEN_BY_NATURE = {  # of these AWS knows no single resource
    "rekognition:DetectFaces",
    "cloudwatch:PutMetricData",
    "iot:ListJobs",
    *(f"greengrass:{action}Deployment{s}" for action, s in (("Create", ""), ("Get", ""), ("List", "s"))),
}

FACE = {"BoundingBox": {"Width": 0.5, "Height": 0.5}, "Emotions": [{"Type": "SAD", "Confidence": 90.0}]}


def rekognize_emotions(cloud: LocalCloud, faults: Faults) -> None:
    answer = Response(json.dumps({"FaceDetails": [FACE]}).encode())
    faults.answer("rekognition", "DetectFaces", answer, answer, error("InvalidS3ObjectException"))
    faults.answer("monitoring", "PutMetricData", *[error("InternalServiceFault", 500)] * 2)
    with pytest.raises(FunctionError):
        cloud.function("RekognizeEmotions").invoke(sample("s3_face_created"))
    for _ in range(2):
        cloud.function("RekognizeEmotions").invoke(sample("s3_face_created"))


def ingest_edge_logs(cloud: LocalCloud, faults: Faults) -> None:
    cloud.aws.client("logs").delete_log_group(logGroupName="/edgeml/turbine")
    cloud.function("IngestEdgeLogs").invoke(sample("iot_rawdata") | {"data": {"ts": 4e9, "values": []}})


def collect_sample(cloud: LocalCloud, faults: Faults) -> None:
    event = sample("sns_sample")
    event["Records"][0]["Sns"]["MessageId"] = str(uuid.uuid4())
    faults.answer("firehose", "PutRecordBatch", error("ResourceNotFoundException"))
    with pytest.raises(FunctionError):
        cloud.function("CollectSample").invoke(event)
    for _ in range(2):
        cloud.function("CollectSample").invoke(event)


def live_inference(cloud: LocalCloud, faults: Faults) -> None:
    cloud.function("LiveInference").invoke(sample("api_liveinference"))


def create_iot_job(cloud: LocalCloud, faults: Faults) -> None:
    s3, bucket = cloud.aws.client("s3"), "edgeml-models-123456789012-us-east-1"
    s3.put_object(Bucket=bucket, Key="b/p/model.zip", Body=b"bundle")
    document = {
        "operation": "update_model",
        "version": "1.0.0",
        "model_name": "WindTurbine",
        "model_version": "1.2.0",
        "onnxruntime_version": "1.23.0",
        "deployment_artifact_path": f"${{aws:iot:s3-presigned-url:https://s3.us-east-1.amazonaws.com/{bucket}/b/p/model.zip}}",
        "sha256": "0" * 64,
        "size": 6,
        "signature": b64encode(bytes(64)).decode(),
    }
    with IotJobs(cloud.aws, *cloud.mqtt_address):
        for version in ("1.2.0", "1.3.0"):  # the second job takes the place of the first
            body = json.dumps({**document, "model_version": version}).encode()
            s3.put_object(Bucket=bucket, Key="b/p/job.json", Body=body)
            cloud.drain()
    jobs = {job["jobId"][:17]: job["status"] for job in cloud.aws.client("iot").list_jobs()["jobs"]}
    assert jobs == {"WindTurbine-1_2_0": "CANCELED", "WindTurbine-1_3_0": "IN_PROGRESS"}


def update_deployment(cloud: LocalCloud, faults: Faults) -> None:
    greengrass, name = cloud.aws.client("greengrassv2"), "edgeml.model.WindTurbine"
    target = cloud.stack.outputs["ThingGroupArn"] if cloud.stack else ""
    for version in ("1.0.0", "1.1.0"):
        recipe = {"RecipeFormatVersion": "2020-01-25", "ComponentName": name, "ComponentVersion": version}
        greengrass.create_component_version(inlineRecipe=json.dumps(recipe | {"Manifests": [{}]}).encode())
    greengrass.create_deployment(targetArn=target, components={name: {"componentVersion": "1.0.0"}})
    event = json.dumps({"component_name": name, "component_version": "1.1.0"}).encode()
    cloud.aws.client("lambda").invoke(FunctionName="UpdateDeployment", InvocationType="Event", Payload=event)
    cloud.drain()
    (latest,) = greengrass.list_deployments(targetArn=target)["deployments"]
    components = greengrass.get_deployment(deploymentId=latest["deploymentId"])["components"]
    assert components == {name: {"componentVersion": "1.1.0"}}


EXERCISES: dict[str, Callable[[LocalCloud, Faults], None]] = {
    "RekognizeEmotions": rekognize_emotions,
    "IngestEdgeLogs": ingest_edge_logs,
    "CollectSample": collect_sample,
    "LiveInference": live_inference,
    "CreateIotJob": create_iot_job,
    "UpdateDeployment": update_deployment,
}


@pytest.mark.parametrize("name", EXERCISES)
def test_a_handler_asks_for_what_its_role_grants_and_for_all_of_it(
    cloud: LocalCloud, faults: Faults, name: str
) -> None:
    EXERCISES[name](cloud, faults)
    function = cloud.function(name)
    namespace = {"cloudwatch:namespace": "EdgeML/Emotions"}
    denied = [need for need in function.asked if not iam.allowed(function.setting.statements, need, namespace)]
    assert not denied
    granted = {action for statement in function.setting.statements for action in as_list(statement["Action"])}
    assert granted - {action for action, _ in function.asked} <= OWN
    for pattern in WHERE[name]:
        assert any(fnmatchcase(resource, pattern) for _, resource in function.asked), f"nobody asks for {pattern}"


@pytest.mark.parametrize("name", WHERE)
def test_a_handler_reaches_where_it_works_and_no_further(cloud: LocalCloud, name: str) -> None:
    statements = cloud.function(name).setting.statements
    actions = {action for statement in statements for action in as_list(statement["Action"])} - OPEN_BY_NATURE
    found = {arn for arn in WORLD if any(iam.allowed(statements, (action, arn), {}) for action in actions)}
    assert found == {arn for arn in WORLD if any(fnmatchcase(arn, pattern) for pattern in WHERE[name])}


@pytest.mark.parametrize("name", WHERE)
def test_a_function_logs_and_hands_failures_over_where_its_settings_say(cloud: LocalCloud, name: str) -> None:
    assert cloud.stack is not None
    setting = cloud.function(name).setting
    group = cloud.stack.resources[name].properties["LoggingConfig"]["LogGroup"]
    stream = f"arn:aws:logs:{AT}:log-group:{group}:log-stream:2026/11/21/[$LATEST]1"
    others = {stream.replace(group, each.name) for each in cloud.stack.of_type("AWS::Logs::LogGroup")} - {stream}
    others -= {f"{TURBINE}:log-stream:2026/11/21/[$LATEST]1"} if name == "IngestEdgeLogs" else set()
    for action in ("logs:CreateLogStream", "logs:PutLogEvents"):
        assert iam.allowed(setting.statements, (action, stream), {})
        assert not any(iam.allowed(setting.statements, (action, other), {}) for other in others)
    queue = cloud.stack.resources["FailedEvents"].arn
    assert setting.on_failure == ("" if name == "LiveInference" else queue)
    for arn in (queue, f"{queue}2"):
        assert iam.allowed(setting.statements, ("sqs:SendMessage", arn), {}) is (arn == setting.on_failure)


def test_every_function_is_exercised(cloud: LocalCloud) -> None:
    assert {function.setting.name for function in cloud.functions.values()} == set(EXERCISES)


def test_policies_name_actions_and_no_resource_is_open_that_need_not_be(cloud: LocalCloud) -> None:
    for function in cloud.functions.values():
        for statement in function.setting.statements:
            actions = as_list(statement["Action"])
            assert not [action for action in actions if "*" in action]
            assert "*" not in as_list(statement["Resource"]) or set(actions) <= OPEN_BY_NATURE


# What the role of those who deploy has beside what scripts/deploy asks for: to approve, to look, to stop.
ENGINEERS_OWN = {
    "sagemaker:DescribeModelPackage",
    "sagemaker:ListModelPackages",
    "sagemaker:UpdateModelPackage",
    "codebuild:BatchGetBuilds",
    "codebuild:ListBuildsForProject",
    "codebuild:RetryBuild",
    "codebuild:StopBuild",
    "greengrass:CancelDeployment",
    "greengrass:GetCoreDevice",
    "greengrass:ListComponents",
    "greengrass:ListCoreDevices",
    "greengrass:ListEffectiveDeployments",
    "greengrass:ListInstalledComponents",
}


def test_an_engineer_deploys_with_the_rights_of_that_role(cloud: LocalCloud, tmp_path: Path) -> None:
    assert cloud.stack is not None
    group = cloud.stack.outputs["ThingGroupArn"].rpartition("/")[2]
    iot = cloud.aws.client("iot")
    iot.create_thing(thingName="edgeml-press-1")
    iot.add_thing_to_thing_group(thingGroupName=group, thingName="edgeml-press-1")

    def succeed(made: Deployment) -> None:
        for thing in made.executions:
            cloud.greengrass.report(made.id, thing, "SUCCEEDED")

    cloud.greengrass.on_deployment.append(succeed)
    cloud.aws.client("greengrassv2").create_deployment(
        targetArn=cloud.stack.outputs["ThingGroupArn"], components={}, tags={"cost": "42"}
    )
    both = ["--thing-group", group, "--yes", "--interval", "0.02", "--timeout", "5"]
    builds = [built(tmp_path / version, version) for version in ("1.0.0", "1.1.0")]
    steps = [["--builds", each, *both] for each in (*builds, builds[1])]
    steps += [["status", "--thing-group", group], ["rollback", *both], ["--component", "edgeml.A=9.9.9", *both]]
    left_by_another_try = {"Key": "edgeml.A/1.1.0/code.zip", "Body": b"1.1.0"}
    cloud.aws.client("s3").put_object(Bucket=cloud.stack.outputs["ComponentBucketName"], **left_by_another_try)
    script = tmp_path / "steps.py"
    script.write_text("import deploy, json, sys\nprint([*map(deploy.main, json.loads(sys.argv[1]))])\n")
    statements = cloud.stack.statements(cloud.stack.resources["IiotEngineeringRole"].arn)
    role = {"statements": statements, "region": REGION, "account": ACCOUNT}
    environment = {"LOCAL_ROLE": json.dumps(role), "LOCAL_ASKED": str(tmp_path / "asked")}
    done = subprocess.run(
        [sys.executable, "-P", GUARDED, script, json.dumps(steps)],
        env={**os.environ, **cloud.environment(), **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    cloud.greengrass.on_deployment.clear()
    *good, missing = json.loads(done.stdout.splitlines()[-1])
    assert (set(good), bool(missing)) == ({0}, True), done.stdout + done.stderr
    granted = {a for each in statements if each["Effect"] == "Allow" for a in as_list(each["Action"])}
    asked = {action for action, _ in json.loads((tmp_path / "asked").read_text())}
    assert granted - asked == ENGINEERS_OWN


def built(folder: Path, version: str) -> str:
    """A component as scripts/build leaves it."""
    artifacts = folder / "a" / "greengrass-build" / "artifacts" / "edgeml.A" / version
    artifacts.mkdir(parents=True)
    (artifacts / "code.zip").write_bytes(version.encode())
    recipe = {
        "RecipeFormatVersion": "2020-01-25",
        "ComponentName": "edgeml.A",
        "ComponentVersion": version,
        "Manifests": [{"Artifacts": [{"Uri": "s3://BUCKET_NAME/COMPONENT_NAME/COMPONENT_VERSION/code.zip"}]}],
    }
    recipes = folder / "a" / "greengrass-build" / "recipes"
    recipes.mkdir()
    (recipes / "edgeml.A.yaml").write_text(json.dumps(recipe))
    return str(folder)


def test_another_namespace_is_not_granted(cloud: LocalCloud) -> None:
    statements = cloud.function("RekognizeEmotions").setting.statements
    assert not iam.allowed(statements, ("cloudwatch:PutMetricData", "*"), {"cloudwatch:namespace": "Other"})


def as_list(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]
