"""Makes the resources of a stack that hold state: what CloudFormation would do, for the types that moto keeps."""

from collections.abc import Callable
from typing import Any

from localdev.cloud.aws import LocalAws
from localdev.cloud.template import Resource, Stack


def create(stack: Stack, aws: LocalAws) -> None:
    """Creates buckets, tables, queues, topics, log groups, streams, thing groups and their like, empty."""
    clients: dict[str, Any] = {}
    for resource in stack.resources.values():
        maker = MAKERS.get(resource.type)
        if maker is not None:
            service, make = maker
            client = clients.get(service) or clients.setdefault(service, aws.client(service))
            make(client, resource)


def _table(client: Any, resource: Resource) -> None:
    keys = ("AttributeDefinitions", "KeySchema", "BillingMode")
    client.create_table(TableName=resource.name, **{key: resource.properties[key] for key in keys})


def _bucket(client: Any, resource: Resource) -> None:
    client.create_bucket(Bucket=resource.name)
    if "VersioningConfiguration" in resource.properties:
        client.put_bucket_versioning(
            Bucket=resource.name, VersioningConfiguration=resource.properties["VersioningConfiguration"]
        )


def _stream(client: Any, resource: Resource) -> None:
    destination = resource.properties["ExtendedS3DestinationConfiguration"]
    keys = ("BucketARN", "RoleARN", "Prefix", "ErrorOutputPrefix", "CompressionFormat")
    client.create_delivery_stream(
        DeliveryStreamName=resource.name,
        DeliveryStreamType="DirectPut",
        ExtendedS3DestinationConfiguration={key: destination[key] for key in keys if key in destination},
    )


def _log_group(client: Any, resource: Resource) -> None:
    client.create_log_group(logGroupName=resource.name)
    if days := resource.properties.get("RetentionInDays"):
        client.put_retention_policy(logGroupName=resource.name, retentionInDays=int(days))


def _project(client: Any, resource: Resource) -> None:
    p = resource.properties
    environment = {"type": p["Environment"]["Type"], "image": p["Environment"]["Image"]}
    client.create_project(
        name=resource.name,
        source={"type": p["Source"]["Type"], "location": p["Source"]["Location"]},
        artifacts={"type": p["Artifacts"]["Type"]},
        environment=environment | {"computeType": p["Environment"]["ComputeType"]},
        serviceRole=p["ServiceRole"],
    )


def _dashboard(client: Any, resource: Resource) -> None:
    client.put_dashboard(DashboardName=resource.name, DashboardBody=resource.properties["DashboardBody"])


MAKERS: dict[str, tuple[str, Callable[[Any, Resource], object]]] = {
    "AWS::CloudWatch::Dashboard": ("cloudwatch", _dashboard),
    "AWS::CodeBuild::Project": ("codebuild", _project),
    "AWS::DynamoDB::Table": ("dynamodb", _table),
    "AWS::IoT::ThingGroup": ("iot", lambda client, r: client.create_thing_group(thingGroupName=r.name)),
    "AWS::KinesisFirehose::DeliveryStream": ("firehose", _stream),
    "AWS::Logs::LogGroup": ("logs", _log_group),
    "AWS::S3::Bucket": ("s3", _bucket),
    "AWS::SNS::Topic": ("sns", lambda client, r: client.create_topic(Name=r.name)),
    "AWS::SQS::Queue": ("sqs", lambda client, r: client.create_queue(QueueName=r.name)),
    "AWS::SageMaker::ModelPackageGroup": (
        "sagemaker",
        lambda client, r: client.create_model_package_group(ModelPackageGroupName=r.name),
    ),
}
