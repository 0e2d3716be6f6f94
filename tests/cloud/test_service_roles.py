"""Roles that AWS's services assume: by whom, for what, and nothing beside it. Also who may put into the queue."""

from typing import Any

import pytest

from localdev.cloud import iam
from localdev.cloud.cloud import TEMPLATE
from localdev.cloud.template import Stack

AT = "us-east-1:123456789012"
DATA, MODELS = (f"arn:aws:s3:::edgeml-{kind}-123456789012-us-east-1" for kind in ("data", "models"))
COMPONENTS = "arn:aws:s3:::edgeml-components-us-east-1-123456789012"
QUEUE = f"arn:aws:sqs:{AT}:FailedEvents"
TOPIC = f"arn:aws:sns:{AT}:SampleTopic"
PROJECT = f"arn:aws:codebuild:{AT}:project/ExportModelProject"
DELIVERY = f"arn:aws:logs:{AT}:log-group:/edgeml/firehose/samples:log-stream:s3"
BUILD_LOG = f"arn:aws:logs:{AT}:log-group:/edgeml/codebuild/export_model:log-stream:1"
IN_DEVICES, IN_TURBINE = ({"cloudwatch:namespace": f"EdgeML/{name}"} for name in ("Devices", "Turbine"))
BUILT_OF = (f"{MODELS}/training/Tiny/1.0.0/model.tar.gz", f"{MODELS}/source/training.zip")
GRANTED: dict[str, set[tuple[str, str]]] = {
    "SampleStreamRole": {
        *(("s3:PutObject", f"{DATA}/{prefix}/1") for prefix in ("samples", "samples-failed")),
        *(("s3:AbortMultipartUpload", f"{DATA}/{prefix}/1") for prefix in ("samples", "samples-failed")),
        *((f"s3:{do}", DATA) for do in ("GetBucketLocation", "ListBucket", "ListBucketMultipartUploads")),
        ("logs:PutLogEvents", DELIVERY),
    },
    "RuleErrorRole": {("sqs:SendMessage", QUEUE)},
    "SampleRuleRole": {("sns:Publish", TOPIC)},
    "DeviceLostRuleRole": {("cloudwatch:PutMetricData", "*")},
    "ModelApprovedRole": {("codebuild:StartBuild", PROJECT)},
    "ModelUrlRole": {("s3:GetObject", each) for each in (f"{MODELS}/Tiny/1.0.0/Tiny.zip", *BUILT_OF)},
    "ExportModelRole": {
        *((f"s3:{do}", f"{MODELS}/Tiny/1.0.0/Tiny.zip") for do in ("GetObject", "GetObjectVersion", "PutObject")),
        *((f"s3:{do}", each) for do in ("GetObject", "GetObjectVersion") for each in BUILT_OF),
        ("s3:ListBucket", MODELS),
        *((f"s3:{do}", f"{COMPONENTS}/edgeml.model.Tiny/1.0.0/bundle.zip") for do in ("GetObject", "PutObject")),
        ("greengrass:CreateComponentVersion", f"arn:aws:greengrass:{AT}:components:edgeml.model.Tiny"),
        ("sagemaker:DescribeModelPackage", f"arn:aws:sagemaker:{AT}:model-package/edgeml-models/3"),
        ("lambda:InvokeFunction", f"arn:aws:lambda:{AT}:function:UpdateDeployment"),
        ("secretsmanager:GetSecretValue", f"arn:aws:secretsmanager:{AT}:secret:signing-a1B2c3"),
        *((f"logs:{do}", BUILD_LOG) for do in ("CreateLogStream", "PutLogEvents")),
    },
}
ELSEWHERE = {
    *(COMPONENTS, f"{COMPONENTS}/edgeml.A/1.0.0/a.zip", f"arn:aws:greengrass:{AT}:components:edgeml.A"),
    *(f"arn:aws:sagemaker:{AT}:model-package/payroll/1", f"arn:aws:lambda:{AT}:function:CreateIotJob"),
    *(f"arn:aws:secretsmanager:{AT}:secret:{name}-a1B2c3" for name in ("signing-2", "EI_API_KEY")),
    *(DATA, f"{DATA}/faces/press-1/1.jpg", MODELS, "arn:aws:s3:::payroll", "arn:aws:s3:::payroll/1"),
    *(f"arn:aws:sqs:{AT}:payroll", f"arn:aws:sns:{AT}:AlarmTopic", f"arn:aws:codebuild:{AT}:project/payroll"),
    f"arn:aws:logs:{AT}:log-group:/edgeml/turbine:log-stream:rawdata",
}
TRUSTED = {
    "CollectSampleRole": "lambda",
    "CreateIotJobRole": "lambda",
    "IngestEdgeLogsRole": "lambda",
    "LiveInferenceRole": "lambda",
    "RekognizeEmotionsRole": "lambda",
    "UpdateDeploymentRole": "lambda",
    "DeviceLostRuleRole": "iot",
    "ModelUrlRole": "iot",
    "RuleErrorRole": "iot",
    "SampleRuleRole": "iot",
    "TokenExchangeRole": "credentials.iot",
    "SampleStreamRole": "firehose",
    "ModelApprovedRole": "events",
    "ExportModelRole": "codebuild",
    "DataScienceRole": "sagemaker",
}


@pytest.fixture(scope="module")
def stack() -> Stack:
    return Stack(TEMPLATE, {"SigningKeySecret": "signing"})


@pytest.mark.parametrize("role", GRANTED)
def test_a_service_may_do_its_work_and_nothing_else(stack: Stack, role: str) -> None:
    world = ELSEWHERE | {resource for needs in GRANTED.values() for _, resource in needs}
    actions = {action for needs in GRANTED.values() for action, _ in needs} | {"s3:DeleteObject", "s3:PutObjectAcl"}
    statements = stack.statements(stack.resources[role].arn)
    found = {(a, r) for a in actions for r in world if iam.allowed(statements, (a, r), IN_DEVICES)}
    if role == "DeviceLostRuleRole":  # a metric has no ARN, but a namespace
        assert not iam.allowed(statements, ("cloudwatch:PutMetricData", "*"), IN_TURBINE)
        found = {need for need in found if need[1] == "*"}
    assert found == GRANTED[role]
    named = {action for each in statements for action in as_list(each["Action"])}
    assert named == {action for action, _ in GRANTED[role]}


def test_each_role_is_assumed_by_the_one_service_that_uses_it(stack: Stack) -> None:
    account_root = "arn:aws:iam::123456789012:root"
    found = {}
    for role in stack.of_type("AWS::IAM::Role"):
        for statement in role.properties["AssumeRolePolicyDocument"]["Statement"]:
            assert (statement["Effect"], statement["Action"]) == ("Allow", "sts:AssumeRole")
            if statement["Principal"] == {"AWS": account_root}:
                assert role.id in ("DataScienceRole", "IiotEngineeringRole")
            else:
                assert role.id not in found
                found[role.id] = statement["Principal"]["Service"].removesuffix(".amazonaws.com")
    assert found == TRUSTED


def test_services_are_given_these_roles(stack: Stack) -> None:
    arns = {name: stack.resources[name].arn for name in TRUSTED}
    used = {
        "SampleStreamRole": stack.resources["SampleStream"].properties["ExtendedS3DestinationConfiguration"]["RoleARN"],
        "ModelApprovedRole": stack.resources["ModelApprovedRule"].properties["Targets"][0]["RoleArn"],
        "ExportModelRole": stack.resources["ExportModelProject"].properties["ServiceRole"],
        "ModelUrlRole": stack.resources["CreateIotJob"].properties["Environment"]["Variables"]["URL_ROLE_ARN"],
        "TokenExchangeRole": stack.resources["TokenExchangeRoleAlias"].properties["RoleArn"],
    }
    assert used == {name: arns[name] for name in used}
    for function in stack.of_type("AWS::Lambda::Function"):
        assert function.properties["Role"] == arns[f"{function.id}Role"]


def test_samples_are_delivered_where_the_role_may_put_them(stack: Stack) -> None:
    destination = stack.resources["SampleStream"].properties["ExtendedS3DestinationConfiguration"]
    assert destination["BucketARN"] == DATA
    assert (destination["Prefix"], destination["ErrorOutputPrefix"]) == ("samples/", "samples-failed/")
    logging = destination["CloudWatchLoggingOptions"]
    group, stream = stack.resources["SampleDeliveryLogs"].name, stack.resources["SampleDeliveryLogStream"]
    assert (logging["LogGroupName"], logging["LogStreamName"]) == (group, stream.name)
    assert stream.properties["LogGroupName"] == group


def test_an_approval_that_starts_no_build_is_kept(stack: Stack) -> None:
    rule, queue = stack.resources["ModelApprovedRule"], stack.resources["FailedEvents"]
    (target,) = rule.properties["Targets"]
    assert target["Arn"] == stack.resources["ExportModelProject"].arn
    assert target["DeadLetterConfig"] == {"Arn": queue.arn}
    (policy,) = stack.of_type("AWS::SQS::QueuePolicy")
    assert [url.rpartition("/")[2] for url in policy.properties["Queues"]] == [queue.name]
    assert policy.properties["PolicyDocument"]["Statement"] == [
        {
            "Effect": "Allow",
            "Principal": {"Service": "events.amazonaws.com"},
            "Action": "sqs:SendMessage",
            "Resource": queue.arn,
            "Condition": {"ArnEquals": {"aws:SourceArn": rule.arn}},
        }
    ]


def as_list(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]
