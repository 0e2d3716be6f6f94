import pytest

from localdev.cloud import iam

READ = {
    "Effect": "Allow",
    "Action": ["s3:Get*", "s3:ListBucket"],
    "Resource": ["arn:aws:s3:::b/in/*", "arn:aws:s3:::b"],
}
DENY = {"Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::b/in/secret/?.txt"}
NAMESPACE = {
    "Effect": "Allow",
    "Action": "cloudwatch:PutMetricData",
    "Resource": "*",
    "Condition": {"StringEquals": {"cloudwatch:namespace": "Mine"}},
}


@pytest.mark.parametrize(
    ("need", "allowed"),
    [
        (("s3:GetObject", "arn:aws:s3:::b/in/a/b.txt"), True),
        (("S3:getobject", "arn:aws:s3:::b/in/a"), True),
        (("s3:PutObject", "arn:aws:s3:::b/in/a"), False),
        (("s3:GetObject", "arn:aws:s3:::b/out/a"), False),
        (("s3:GetObject", "arn:aws:s3:::b/in/secret/1.txt"), False),
        (("s3:GetObject", "arn:aws:s3:::b/in/secret/12.txt"), True),
        (("s3:GetObject", "arn:aws:s3:::bxin/a"), False),
    ],
)
def test_wildcards_and_denies(need: iam.Need, allowed: bool) -> None:
    assert iam.allowed([READ, DENY], need, {}) is allowed


@pytest.mark.parametrize(("context", "allowed"), [({"cloudwatch:namespace": "Mine"}, True), ({}, False)])
def test_conditions_must_hold(context: dict[str, str], allowed: bool) -> None:
    assert iam.allowed([NAMESPACE], ("cloudwatch:PutMetricData", "*"), context) is allowed


@pytest.mark.parametrize(("status", "refused"), [("Pending", False), ("Approved", True), (None, True)])
def test_what_must_equal_a_value_may_not_be_missing(status: str | None, refused: bool) -> None:
    key = "sagemaker:ModelApprovalStatus"
    deny = {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": {"StringNotEquals": {key: "Pending"}}}
    parameters = {"ModelApprovalStatus": status} if status else {}
    context = iam.condition_keys("sagemaker", parameters)
    assert iam.allowed([READ, deny], ("s3:GetObject", "arn:aws:s3:::b/in/a"), context) is not refused


def test_an_unknown_condition_is_an_error_not_a_yes() -> None:
    statement = NAMESPACE | {"Condition": {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}
    with pytest.raises(ValueError, match="IpAddress is not implemented"):
        iam.allowed([statement], ("cloudwatch:PutMetricData", "*"), {})


def needs(service: str, operation: str, **parameters: object) -> list[iam.Need]:
    return iam.needs(service, operation, parameters, "r", "1")


def test_what_calls_need() -> None:
    assert needs("s3", "PutObject", Bucket="b", Key="k{r}") == [("s3:PutObject", "arn:aws:s3:::b/k{r}")]
    assert needs("s3", "HeadObject", Bucket="b", Key="k") == [
        ("s3:GetObject", "arn:aws:s3:::b/k"),
        ("s3:ListBucket", "arn:aws:s3:::b"),
    ]
    assert needs("dynamodb", "PutItem", TableName="t") == [("dynamodb:PutItem", "arn:aws:dynamodb:r:1:table/t")]
    assert needs("sagemaker-runtime", "InvokeEndpoint", EndpointName="e") == [
        ("sagemaker:InvokeEndpoint", "arn:aws:sagemaker:r:1:endpoint/e")
    ]
    image = {"S3Object": {"Bucket": "b", "Name": "k"}}
    assert ("s3:GetObject", "arn:aws:s3:::b/k") in needs("rekognition", "DetectFaces", Image=image)
    job = needs("iot", "CreateJob", jobId="j", targets=["g"], presignedUrlConfig={"roleArn": "role"})
    assert job == [("iot:CreateJob", "arn:aws:iot:r:1:job/j"), ("iot:CreateJob", "g"), ("iam:PassRole", "role")]
    tagged = needs("greengrassv2", "CreateDeployment", targetArn="g", tags={"a": "b"})
    assert set(tagged) - set(needs("greengrassv2", "CreateDeployment", targetArn="g")) == {
        ("greengrass:TagResource", "arn:aws:greengrass:r:1:deployments:any")
    }
    group = "arn:aws:logs:r:1:log-group:g:log-stream:"
    assert needs("logs", "CreateLogGroup", logGroupName="g") == [("logs:CreateLogGroup", group)]
    assert needs("logs", "PutLogEvents", logGroupName="g", logStreamName="s") == [("logs:PutLogEvents", f"{group}s")]
    package = "arn:aws:sagemaker:r:1:model-package/g/1"
    for operation, parameters in (
        ("CreateModelPackage", {"ModelPackageGroupName": "g"}),
        ("DescribeModelPackage", {"ModelPackageName": package}),
        ("UpdateModelPackage", {"ModelPackageArn": package}),
    ):
        assert needs("sagemaker", operation, **parameters) == [(f"sagemaker:{operation}", package)]
    assert needs("sagemaker", "ListModelPackageGroups") == [("sagemaker:ListModelPackageGroups", "*")]
    assert needs("sts", "GetCallerIdentity") == []
    queue = "http://127.0.0.1:1/1/failed"
    assert needs("sqs", "SendMessage", QueueUrl=queue) == [("sqs:SendMessage", "arn:aws:sqs:r:1:failed")]
    assert needs("kms", "Decrypt") == [("kms:Decrypt", "*")]


def test_a_variable_of_a_resource_stands_for_its_value_alone() -> None:
    statement = {
        "Effect": "Allow",
        "Action": "s3:PutObject",
        "Resource": "arn:aws:s3:::b/${credentials-iot:ThingName}/*",
    }
    for thing, key, granted in (("a", "a/1", True), ("a", "b/1", False), ("*", "b/1", False), ("a", "/1", False)):
        context = {"credentials-iot:ThingName": thing}
        assert iam.allowed([statement], ("s3:PutObject", f"arn:aws:s3:::b/{key}"), context) is granted
    assert not iam.allowed([statement], ("s3:PutObject", "arn:aws:s3:::b//1"), {})
