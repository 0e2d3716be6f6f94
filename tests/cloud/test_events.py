"""Sample events, and those of the local cloud, have the fields that AWS documents; handlers take the samples."""

import json
import uuid
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest
from aws_lambda_powertools.utilities.parser import models

from cloud_support import ANY_THING, EVENTS, Faults, sample
from localdev.cloud import LocalCloud, events
from localdev.cloud.aws import Response
from localdev.cloud.cloud import TEMPLATE
from localdev.cloud.iot_rules import Message, Query
from localdev.cloud.template import Stack

TEXT, NUMBER, FLAG, MAYBE = "text", "number", "true or false", "text or null"
TEXTS, LISTS = {"*": TEXT}, {"*": [TEXT]}  # of any keys


def all_of(kind: str, names: str) -> dict[str, Any]:
    return dict.fromkeys(names.split(), kind)


def s3_record(more: dict[str, str]) -> dict[str, Any]:
    """S3 user guide, "Event message structure"."""
    return all_of(TEXT, "eventVersion eventSource awsRegion eventTime eventName") | {
        "userIdentity": {"principalId": TEXT},
        "requestParameters": {"sourceIPAddress": TEXT},
        "responseElements": {"x-amz-request-id": TEXT, "x-amz-id-2": TEXT},
        "s3": {
            "s3SchemaVersion": TEXT,
            "configurationId": TEXT,
            "bucket": {"name": TEXT, "ownerIdentity": {"principalId": TEXT}, "arn": TEXT},
            "object": {"key": TEXT, "size": NUMBER, "eTag": TEXT, "sequencer": TEXT, **more},
        },
    }


# Lambda developer guide, "Using Lambda with Amazon SNS".
SNS = all_of(TEXT, "EventVersion EventSubscriptionArn EventSource") | {
    "Sns": all_of(TEXT, "SignatureVersion Timestamp Signature SigningCertUrl MessageId Message")
    | all_of(TEXT, "Type UnsubscribeUrl TopicArn")
    | {"MessageAttributes": LISTS, "Subject": MAYBE}
}
# SageMaker developer guide, "Events that SageMaker sends to EventBridge", model package state change.
APPROVED = all_of(TEXT, "version id detail-type source account time region") | {
    "resources": [TEXT],
    "detail": all_of(TEXT, "ModelPackageGroupName ModelPackageArn ModelPackageDescription ModelPackageStatus")
    | all_of(TEXT, "ModelApprovalStatus CreationTime LastModifiedTime")
    | {
        "ModelPackageVersion": NUMBER,
        "CertifyForMarketplace": FLAG,
        "ModelPackageStatusDetails": {"ValidationStatuses": [TEXT], "ImageScanStatuses": [TEXT]},
        "InferenceSpecification": {
            "Containers": [{"Image": TEXT, "ModelDataUrl": TEXT}],
            "SupportedContentTypes": [TEXT],
            "SupportedResponseMIMETypes": [TEXT],
        },
    },
}
# API Gateway developer guide, "Input format of a Lambda function for proxy integration".
REQUEST = all_of(TEXT, "resource path httpMethod") | {
    "headers": TEXTS,
    "multiValueHeaders": LISTS,
    "queryStringParameters": TEXTS,
    "multiValueQueryStringParameters": LISTS,
    "pathParameters": MAYBE,
    "stageVariables": MAYBE,
    "body": MAYBE,
    "isBase64Encoded": FLAG,
    "requestContext": all_of(TEXT, "accountId apiId domainName domainPrefix extendedRequestId httpMethod path protocol")
    | all_of(TEXT, "requestId requestTime resourceId resourcePath stage")
    | {
        "requestTimeEpoch": NUMBER,
        "identity": all_of(MAYBE, "accessKey accountId apiKey apiKeyId caller sourceIp user userAgent userArn")
        | all_of(MAYBE, "cognitoAuthenticationProvider cognitoAuthenticationType")
        | all_of(MAYBE, "cognitoIdentityId cognitoIdentityPoolId"),
    },
}
# IoT developer guide, "Lifecycle events".
DISCONNECTED = all_of(TEXT, "clientId eventType sessionIdentifier principalIdentifier disconnectReason") | {
    "clientInitiatedDisconnect": FLAG,
    "timestamp": NUMBER,
    "versionNumber": NUMBER,
}
S3_TEST = all_of(TEXT, "Service Event Time Bucket RequestId HostId")
DOCUMENTED: dict[str, dict[str, Any]] = {
    "s3_face_created": {"Records": [s3_record({})]},
    "s3_job_created": {"Records": [s3_record({"versionId": TEXT})]},
    "s3_test_event": S3_TEST,
    "sns_sample": {"Records": [SNS]},
    "model_package_approved": APPROVED,
    "api_liveinference": REQUEST,
    "iot_presence_disconnected": DISCONNECTED,
}
PARSERS: dict[str, Any] = {  # AWS's own
    "s3_face_created": models.S3Model,
    "s3_job_created": models.S3Model,
    "sns_sample": models.SnsModel,
    "model_package_approved": models.EventBridgeModel,
    "api_liveinference": models.APIGatewayProxyEventModel,
}
HEADERS = {"host": "a.example", "user-agent": "test", "x-api-key": "k"}
LOCAL = {
    "s3_face_created": events.s3("b", "k", "ObjectCreated:Put", 1, "e", ""),
    "s3_job_created": events.s3("b", "k", "ObjectCreated:Put", 1, "e", "v"),
    "sns_sample": events.sns("arn:aws:sns:r:1:t", "m", None, {}),
    "api_liveinference": events.api("GET", "/x", "live", {"a": ["1"]}, HEADERS),
}


def differences(value: Any, documented: Any, at: str = "") -> list[str]:
    """Where a value has other fields or other types than are documented."""
    match documented, value:
        case {"*": each}, dict():
            return [d for key in value for d in differences(value[key], each, f"{at}.{key}")]
        case dict(), dict():
            odd = [f"{at}.{key}" for key in sorted(value.keys() ^ documented.keys())]
            both = sorted(value.keys() & documented.keys())
            return odd + [d for key in both for d in differences(value[key], documented[key], f"{at}.{key}")]
        case [each], list():
            return [d for item in value for d in differences(item, each, f"{at}[]")]
    good = {
        TEXT: isinstance(value, str),
        NUMBER: isinstance(value, int | float) and not isinstance(value, bool),
        FLAG: isinstance(value, bool),
        MAYBE: value is None or isinstance(value, str),
    }
    return [] if isinstance(documented, str) and good[documented] else [f"{at}: {value!r}"]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_events_have_the_documented_fields_and_parse(name: str) -> None:
    for event in (sample(name), LOCAL.get(name, sample(name))):
        assert differences(event, DOCUMENTED[name]) == []
        if name in PARSERS:
            PARSERS[name].model_validate(event)


def test_an_event_of_another_shape_is_noticed() -> None:
    face = sample("s3_face_created")
    face["Records"][0]["s3"]["object"]["Key"] = face["Records"][0]["s3"]["object"].pop("key")
    face["Records"][0]["awsRegion"] = None
    found = differences(face, DOCUMENTED["s3_face_created"])
    assert found == [".Records[].awsRegion: None", ".Records[].s3.object.Key", ".Records[].s3.object.key"]


@pytest.mark.parametrize(
    ("name", "rule", "topic", "added"),
    [
        ("iot_rawdata", "IngestEdgeLogsRule", "device/turbine-7/logs", {"client_id", "topic"}),
        ("iot_inference", "IngestEdgeLogsRule", "device/turbine-7/logs", {"client_id", "topic"}),
        ("iot_sample", "SampleRule", "device/edgeml-turbine-7/samples", {"thing", "publisher"}),
    ],
)
def test_samples_of_messages_are_what_the_rule_hands_on(name: str, rule: str, topic: str, added: set[str]) -> None:
    query = Query(Stack(TEMPLATE, ANY_THING).resources[rule].properties["TopicRulePayload"]["Sql"])
    published = {key: value for key, value in sample(name).items() if key not in added}
    client = sample(name).get("client_id") or sample(name)["publisher"]
    assert query.run(Message(topic, json.dumps(published).encode(), client)) == sample(name)


def face_created(cloud: LocalCloud, faults: Faults) -> None:
    face = {"BoundingBox": {"Width": 0.5, "Height": 0.5}, "Emotions": [{"Type": "SAD", "Confidence": 90.0}]}
    faults.answer("rekognition", "DetectFaces", Response(json.dumps({"FaceDetails": [face]}).encode()))
    assert cloud.function("RekognizeEmotions").invoke(sample("s3_face_created"))["stored"] == 1


def job_created(cloud: LocalCloud, faults: Faults) -> None:
    event = sample("s3_job_created")
    place = event["Records"][0]["s3"]
    s3, bucket = cloud.aws.client("s3"), place["bucket"]["name"]
    s3.put_object(Bucket=bucket, Key="a/model.zip", Body=b"bundle")
    document = {
        "operation": "update_model",
        "version": "1.0.0",
        "model_name": "Tiny",
        "model_version": "1.0.0",
        "deployment_artifact_path": f"${{aws:iot:s3-presigned-url:https://s3.us-east-1.amazonaws.com/{bucket}/a/model.zip}}",
        "sha256": "0" * 64,
        "size": 6,
        "signature": b64encode(bytes(64)).decode(),
    }
    put = s3.put_object(Bucket=bucket, Key=place["object"]["key"], Body=json.dumps(document).encode())
    place["object"]["versionId"] = put["VersionId"]
    cloud.drain()  # of the event that the local cloud makes
    answer = cloud.function("CreateIotJob").invoke(event)
    assert answer["created"] + answer["repeated"] == [
        job["jobId"] for job in cloud.aws.client("iot").list_jobs()["jobs"]
    ]
    assert answer["refused"] == []


def both_told_of_the_notification(cloud: LocalCloud, faults: Faults) -> None:
    for name in ("RekognizeEmotions", "CreateIotJob"):
        assert not any(cloud.function(name).invoke(sample("s3_test_event")).values())


def collected(cloud: LocalCloud, event: dict[str, Any]) -> None:
    event["Records"][0]["Sns"]["MessageId"] = str(uuid.uuid4())
    assert cloud.function("CollectSample").invoke(event) == {"samples": 1}


def ingested(cloud: LocalCloud, name: str, stream: str) -> None:
    cloud.function("IngestEdgeLogs").invoke(sample(name))
    found = cloud.aws.client("logs").get_log_events(logGroupName="/edgeml/turbine", logStreamName=stream)["events"]
    assert any(" turbine-7 " in line["message"] for line in found)


def counted(cloud: LocalCloud, faults: Faults) -> None:
    assert cloud.stack is not None
    query = Query(cloud.stack.resources["DeviceLostRule"].properties["TopicRulePayload"]["Sql"])
    event = sample("iot_presence_disconnected")
    topic = f"$aws/events/presence/disconnected/{event['clientId']}"
    assert query.run(Message(topic, json.dumps(event).encode(), "")) == {"clientId": event["clientId"]}


def answered(cloud: LocalCloud, faults: Faults) -> None:
    faults.answer("sagemaker", "invocations", Response(b"4.2"))
    answer = cloud.function("LiveInference").invoke(sample("api_liveinference"))
    assert (answer["statusCode"], answer["body"]) == (200, "4.2")


def exported(cloud: LocalCloud, faults: Faults) -> None:
    assert cloud.stack is not None
    rule, event = cloud.stack.resources["ModelApprovedRule"].properties, sample("model_package_approved")
    assert events.matches(rule["EventPattern"], event)
    (variable,) = events.transformed(rule["Targets"][0], event)["environmentVariablesOverride"]
    package = "arn:aws:sagemaker:us-east-1:123456789012:model-package/edgeml-models/3"
    assert variable == {"name": "MODEL_PACKAGE_ARN", "type": "PLAINTEXT", "value": package}


def deployed(cloud: LocalCloud, faults: Faults) -> None:
    assert cloud.stack is not None
    greengrass, event = cloud.aws.client("greengrassv2"), sample("update_deployment")
    recipe = {"RecipeFormatVersion": "2020-01-25", "ComponentName": event["component_name"], "Manifests": [{}]}
    for version in ("1.0.0", event["component_version"]):
        greengrass.create_component_version(inlineRecipe=json.dumps({**recipe, "ComponentVersion": version}).encode())
    target = cloud.stack.outputs["ThingGroupArn"]
    greengrass.create_deployment(targetArn=target, components={event["component_name"]: {"componentVersion": "1.0.0"}})
    assert cloud.function("UpdateDeployment").invoke(event)["status"] == "created"


TAKEN: dict[str, Callable[[LocalCloud, Faults], None]] = {
    "s3_face_created": face_created,
    "s3_job_created": job_created,
    "s3_test_event": both_told_of_the_notification,
    "sns_sample": lambda cloud, _: collected(cloud, sample("sns_sample")),
    "iot_sample": lambda cloud, _: collected(cloud, events.sns("arn:t", json.dumps(sample("iot_sample")), None, {})),
    "iot_rawdata": lambda cloud, _: ingested(cloud, "iot_rawdata", "rawdata"),
    "iot_inference": lambda cloud, _: ingested(cloud, "iot_inference", "inference"),
    "iot_presence_disconnected": counted,
    "api_liveinference": answered,
    "model_package_approved": exported,
    "update_deployment": deployed,
}


@pytest.mark.parametrize("name", TAKEN)
def test_who_a_sample_is_for_takes_it(cloud: LocalCloud, faults: Faults, name: str) -> None:
    TAKEN[name](cloud, faults)


def test_no_sample_is_left_out() -> None:
    assert {path.stem for path in EVENTS.glob("*.json")} == set(TAKEN)
