"""Who trains does not deploy and who deploys does not train, whatever else these roles may do."""

from typing import Any

import pytest

from localdev.cloud import iam
from localdev.cloud.cloud import TEMPLATE
from localdev.cloud.template import Stack

AT = "us-east-1:123456789012"
DATA, MODELS = (f"arn:aws:s3:::edgeml-{kind}-123456789012-us-east-1" for kind in ("data", "models"))
COMPONENTS = "arn:aws:s3:::edgeml-components-us-east-1-123456789012"
SAGEMAKER = f"arn:aws:sagemaker:{AT}"
PACKAGE = f"{SAGEMAKER}:model-package/edgeml-models/3"
PENDING, APPROVED = ({"sagemaker:ModelApprovalStatus": status} for status in ("PendingManualApproval", "Approved"))
METADATA = "sagemaker:CustomerMetadataProperties"
PROJECT = f"arn:aws:codebuild:{AT}:project/ExportModelProject"
LOGS = f"arn:aws:logs:{AT}:log-group:/aws/sagemaker/TrainingJobs:log-stream:edgeml-1/algo-1"
IMAGES = "arn:aws:ecr:us-east-1:763104351884:repository/pytorch-training"
DUTIES: list[tuple[str, str, dict[str, str], str]] = [
    # preparing and training
    ("s3:GetObject", f"{DATA}/samples/2026/1", {}, "science"),
    ("s3:ListBucket", DATA, {"s3:prefix": "samples/2026/"}, "science"),
    ("s3:ListBucket", DATA, {"s3:prefix": "faces/"}, "nobody"),
    ("s3:ListBucket", DATA, {}, "nobody"),
    ("sagemaker:AddTags", f"{SAGEMAKER}:training-job/edgeml-1", {}, "science"),
    ("sagemaker:AddTags", PACKAGE, {}, "science"),
    ("sagemaker:AddTags", f"{SAGEMAKER}:training-job/payroll-1", {}, "nobody"),
    ("s3:GetObject", f"{DATA}/faces/press-1/1.jpg", {}, "nobody"),
    ("s3:GetObject", f"{MODELS}/training/1/model.tar.gz", {}, "science"),
    ("s3:PutObject", f"{MODELS}/training/1/model.tar.gz", {}, "science"),
    ("s3:ListBucket", MODELS, {"s3:prefix": "training/1"}, "science"),
    ("s3:ListBucket", MODELS, {"s3:prefix": "source/"}, "nobody"),
    ("sagemaker:CreateTrainingJob", f"{SAGEMAKER}:training-job/edgeml-1", {}, "science"),
    ("sagemaker:CreateProcessingJob", f"{SAGEMAKER}:processing-job/edgeml-1", {}, "science"),
    ("sagemaker:CreateTrainingJob", f"{SAGEMAKER}:training-job/payroll-1", {}, "nobody"),
    ("iam:PassRole", "arn:aws:iam::123456789012:role/local-DataScienceRole-1A2B", {}, "science"),
    ("iam:PassRole", "arn:aws:iam::123456789012:role/ExportModelRole", {}, "nobody"),
    # what SageMaker does as the role that it was passed, says its documentation of CreateTrainingJob
    ("ecr:GetAuthorizationToken", "*", {}, "science"),
    ("ecr:BatchCheckLayerAvailability", IMAGES, {}, "science"),
    ("ecr:BatchGetImage", IMAGES, {}, "science"),
    ("ecr:GetDownloadUrlForLayer", IMAGES, {}, "science"),
    ("logs:CreateLogGroup", LOGS, {}, "science"),
    ("logs:CreateLogStream", LOGS, {}, "science"),
    ("logs:DescribeLogStreams", LOGS, {}, "science"),
    ("logs:PutLogEvents", LOGS, {}, "science"),
    ("logs:PutLogEvents", f"arn:aws:logs:{AT}:log-group:/edgeml/turbine:log-stream:rawdata", {}, "nobody"),
    ("cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": "/aws/sagemaker/TrainingJobs"}, "science"),
    ("cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": "EdgeML/Turbine"}, "nobody"),
    # registering and approving
    ("sagemaker:ListModelPackageGroups", "*", {}, "science"),
    ("sagemaker:CreateModelPackage", PACKAGE, PENDING, "science"),
    ("sagemaker:CreateModelPackage", PACKAGE, APPROVED, "nobody"),
    ("sagemaker:CreateModelPackage", PACKAGE, {}, "nobody"),
    ("sagemaker:CreateModelPackage", f"{SAGEMAKER}:model-package/payroll/1", PENDING, "nobody"),
    ("sagemaker:DescribeModelPackage", PACKAGE, {}, "both"),
    ("sagemaker:ListModelPackages", PACKAGE, {}, "both"),
    ("sagemaker:UpdateModelPackage", PACKAGE, APPROVED, "engineering"),
    ("sagemaker:UpdateModelPackage", f"{SAGEMAKER}:model-package/payroll/1", APPROVED, "nobody"),
    ("sagemaker:UpdateModelPackage", PACKAGE, {**APPROVED, f"{METADATA}/reviewer": "ada"}, "engineering"),
    ("sagemaker:UpdateModelPackage", PACKAGE, {**APPROVED, f"{METADATA}/archive_sha256": "0"}, "nobody"),
    ("sagemaker:UpdateModelPackage", PACKAGE, {f"{METADATA}ToRemove": "archive_sha256"}, "nobody"),
    # whatever reaches a device
    ("s3:PutObject", f"{MODELS}/training/job.json", {}, "nobody"),
    ("s3:PutObject", f"{MODELS}/build/job.json", {}, "nobody"),
    ("s3:PutObject", f"{MODELS}/source/training.zip", {}, "nobody"),
    ("codebuild:StartBuild", PROJECT, {}, "nobody"),
    ("iot:CreateJob", f"arn:aws:iot:{AT}:job/1", {}, "engineering"),
    ("greengrass:CreateDeployment", "*", {}, "engineering"),
    ("iot:UpdateThingShadow", f"arn:aws:iot:{AT}:thing/edgeml-press-1", {}, "engineering"),
    ("iot:UpdateThingShadow", f"arn:aws:iot:{AT}:thing/payroll", {}, "nobody"),
    ("iot:CreateJob", f"arn:aws:iot:{AT}:thinggroup/payroll", {}, "nobody"),
    ("greengrass:CreateComponentVersion", f"arn:aws:greengrass:{AT}:components:edgeml.A", {}, "engineering"),
    ("s3:PutObject", f"{COMPONENTS}/edgeml.A/1.0.0/a.zip", {}, "engineering"),
]


def statements(stack: Stack, role: str) -> list[dict[str, Any]]:
    return stack.statements(stack.resources[role].arn)


@pytest.mark.parametrize(("action", "resource", "context", "whose"), DUTIES)
def test_each_duty_is_of_one_role(
    stack: Stack, action: str, resource: str, context: dict[str, str], whose: str
) -> None:
    roles = {"science": "DataScienceRole", "engineering": "IiotEngineeringRole"}
    may = {name for name, role in roles.items() if iam.allowed(statements(stack, role), (action, resource), context)}
    assert may == {"both": set(roles), "nobody": set()}.get(whose, {whose})


def test_a_broader_policy_beside_the_role_does_not_join_the_duties(stack: Stack) -> None:
    everything = [{"Effect": "Allow", "Action": "*", "Resource": "*"}]
    science = [*everything, *statements(stack, "DataScienceRole")]
    for action, context in (("CreateModelPackage", APPROVED), ("CreateModelPackage", {}), ("UpdateModelPackage", {})):
        assert not iam.allowed(science, (f"sagemaker:{action}", PACKAGE), context)
    assert not iam.allowed(science, ("s3:PutObject", f"{MODELS}/build/job.json"), {})
    engineering = [*everything, *statements(stack, "IiotEngineeringRole")]
    assert not iam.allowed(engineering, ("sagemaker:CreateModelPackage", PACKAGE), PENDING)


def test_studio_is_for_the_people_of_its_domain() -> None:
    need = ("sagemaker:CreateApp", f"{SAGEMAKER}:app/StudioDomain/ada/JupyterLab/default")
    foreign = ("sagemaker:CreateApp", f"{SAGEMAKER}:app/d-other/ada/JupyterLab/default")
    with_studio = Stack(TEMPLATE, {"CreateStudioDomain": "true", "StudioVpcId": "vpc-1"})
    found = [iam.allowed(statements(with_studio, "DataScienceRole"), each, {}) for each in (need, foreign)]
    assert found == [True, False]
    assert not iam.allowed(statements(Stack(TEMPLATE), "DataScienceRole"), need, {})
