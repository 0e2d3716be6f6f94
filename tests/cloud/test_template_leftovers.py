"""What the stack keeps and for how long, and what is left of it when it is deleted."""

from typing import Any

import pytest

from localdev.cloud.cloud import TEMPLATE
from localdev.cloud.template import Stack


def test_functions_log_into_a_group_that_forgets(stack: Stack) -> None:
    groups = {group.name: group.properties for group in stack.of_type("AWS::Logs::LogGroup")}
    for function in stack.of_type("AWS::Lambda::Function"):
        assert int(groups[function.properties["LoggingConfig"]["LogGroup"]]["RetentionInDays"]) == 30
    assert all("RetentionInDays" in group for group in groups.values())


def test_buckets_are_encrypted_private_tidy_and_named_as_what_stays(stack: Stack) -> None:
    buckets = stack.of_type("AWS::S3::Bucket")
    for bucket in buckets:
        rules = bucket.properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
        assert rules[0]["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
        assert set(bucket.properties["PublicAccessBlockConfiguration"].values()) == {True}
        assert bucket.properties["OwnershipControls"] == {"Rules": [{"ObjectOwnership": "BucketOwnerEnforced"}]}
    versioned = {bucket.id for bucket in buckets if "VersioningConfiguration" in bucket.properties}
    assert versioned == {"ModelBucket", "ComponentBucket", "ArtifactBucket"}


VERSIONS = {"NoncurrentVersionExpiration": {"NoncurrentDays": 90}}


UPLOADS = {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}


@pytest.mark.parametrize(
    ("bucket", "rules"),
    [
        (
            "DataBucket",
            {
                "faces/": {"ExpirationInDays": "5"},
                "clips/": {"ExpirationInDays": "5"},
                "look/": {"ExpirationInDays": 1},
                "snapshots/": {"ExpirationInDays": "5"},
                "samples/": {"Transitions": [{"StorageClass": "STANDARD_IA", "TransitionInDays": 30}]},
                "": UPLOADS,
            },
        ),
        ("ResultBucket", {"": {"ExpirationInDays": "5"}}),
        ("ModelBucket", {"": VERSIONS | UPLOADS}),
        ("ComponentBucket", {"": VERSIONS | UPLOADS}),
        ("ArtifactBucket", {"": VERSIONS | UPLOADS}),
    ],
)
def test_what_shows_people_is_forgotten_and_the_rest_gets_cheaper(bucket: str, rules: dict[str, Any]) -> None:
    stack = Stack(TEMPLATE, {"FacesExpireDays": "5"})
    given = stack.resources[bucket].properties["LifecycleConfiguration"]["Rules"]
    assert {rule["Status"] for rule in given} == {"Enabled"}
    found = {rule.get("Prefix", ""): {k: v for k, v in rule.items() if k not in NAMES} for rule in given}
    assert found == rules


NAMES = {"Id", "Status", "Prefix"}


# What becomes of each type of resource when the stack is deleted. A new type has to be thought about.
KEPT = {"AWS::S3::Bucket", "AWS::SageMaker::ModelPackageGroup"}  # named by the output KeptWhenDeleted


DETACHED_FIRST = {"AWS::IoT::Policy"}  # AWS deletes none that certificates have, see the README


LEAVES_COSTS = {"AWS::SageMaker::Domain"}  # its file system stays, see the README


DELETED = {
    "AWS::ApiGateway::Deployment",
    "AWS::ApiGateway::RestApi",
    "AWS::ApiGateway::Stage",
    "AWS::ApiGateway::UsagePlan",
    "AWS::ApiGateway::ApiKey",
    "AWS::ApiGateway::UsagePlanKey",
    "AWS::CloudWatch::Alarm",
    "AWS::CloudWatch::Dashboard",
    "AWS::CodeBuild::Project",
    "AWS::DynamoDB::Table",
    "AWS::Events::Rule",
    "AWS::IAM::ManagedPolicy",
    "AWS::IAM::Policy",
    "AWS::IAM::Role",
    "AWS::IoT::RoleAlias",
    "AWS::IoT::ThingGroup",
    "AWS::IoT::TopicRule",
    "AWS::KinesisFirehose::DeliveryStream",
    "AWS::Lambda::EventInvokeConfig",
    "AWS::Lambda::Function",
    "AWS::Lambda::Permission",
    "AWS::Logs::LogGroup",
    "AWS::Logs::LogStream",
    "AWS::SNS::Subscription",
    "AWS::SNS::Topic",
    "AWS::SQS::Queue",
    "AWS::SQS::QueuePolicy",
}


def test_the_stack_leaves_nothing_but_what_it_names(stack: Stack) -> None:
    types = {spec["Type"] for spec in stack.raw["Resources"].values()}
    assert types == KEPT | DETACHED_FIRST | LEAVES_COSTS | DELETED
    for name, spec in stack.raw["Resources"].items():
        policy = spec.get("DeletionPolicy", "Delete")
        assert policy == ("RetainExceptOnCreate" if spec["Type"] in KEPT else "Delete"), name
    kept = {resource.name for kind in KEPT for resource in stack.of_type(kind)}
    assert set(stack.outputs["KeptWhenDeleted"].split()) == kept
    readme = (TEMPLATE.parent / "README.md").read_text(encoding="utf-8")
    steps = readme[readme.index("## Delete") : readme.index("## Messages")]
    for needed in (
        "detach-policy",
        "EFS",
        "/aws/greengrass/",
        "rekognize-faces",
        *(f"`{output}`" for output in OUTPUTS),
    ):
        assert needed in steps


OUTPUTS = {"KeptWhenDeleted", "DevicePolicyName", "TokenExchangePolicyName"}  # that the steps of deleting use
