"""What the handlers ask of AWS is what their roles in the template grant, no less and no more."""

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from cloud_support import Faults, error, sample
from localdev.cloud import LocalCloud, iam
from localdev.cloud.aws import Response
from localdev.cloud.lambdas import FunctionError

OWN = {"logs:CreateLogStream", "logs:PutLogEvents", "sqs:SendMessage"}  # Lambda's, in the name of every function
OWN |= {
    "dynamodb:GetItem"
}  # Powertools' idempotency reads when DynamoDB does not return the item it refused to replace
FACE = {"BoundingBox": {"Width": 0.5, "Height": 0.5}, "Emotions": [{"Type": "SAD", "Confidence": 90.0}]}


def rekognize_emotions(cloud: LocalCloud, faults: Faults) -> None:
    answer = Response(json.dumps({"FaceDetails": [FACE]}).encode())
    faults.answer("rekognition", "DetectFaces", answer, answer, error("InvalidS3ObjectException"))
    faults.answer("monitoring", "PutMetricData", error("InvalidParameterValue"))
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


EXERCISES: dict[str, Callable[[LocalCloud, Faults], None]] = {
    "RekognizeEmotions": rekognize_emotions,
    "IngestEdgeLogs": ingest_edge_logs,
    "CollectSample": collect_sample,
    "LiveInference": live_inference,
}


@pytest.mark.parametrize("name", EXERCISES)
def test_a_handler_asks_for_what_its_role_grants_and_for_all_of_it(
    cloud: LocalCloud, faults: Faults, name: str
) -> None:
    try:
        EXERCISES[name](cloud, faults)
    except FunctionError as failure:
        assert "refuses its time" in str(failure)  # what ingest_edge_logs says of a message from the future
    function = cloud.function(name)
    namespace = {"cloudwatch:namespace": "EdgeML/Emotions"}
    denied = [need for need in function.asked if not iam.allowed(function.setting.statements, need, namespace)]
    assert not denied
    granted = {action for statement in function.setting.statements for action in as_list(statement["Action"])}
    assert granted - {action for action, _ in function.asked} <= OWN


def test_policies_name_actions_and_no_resource_is_open_that_need_not_be(cloud: LocalCloud) -> None:
    open_by_nature = {"rekognition:DetectFaces", "cloudwatch:PutMetricData"}
    for function in cloud.functions.values():
        for statement in function.setting.statements:
            actions = as_list(statement["Action"])
            assert not [action for action in actions if "*" in action]
            assert "*" not in as_list(statement["Resource"]) or set(actions) <= open_by_nature


def test_another_namespace_is_not_granted(cloud: LocalCloud) -> None:
    statements = cloud.function("RekognizeEmotions").setting.statements
    assert not iam.allowed(statements, ("cloudwatch:PutMetricData", "*"), {"cloudwatch:namespace": "Other"})


def as_list(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]
