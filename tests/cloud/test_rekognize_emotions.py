import copy
import json
import os
import signal
import time
import uuid
from typing import Any

import pytest

from cloud_support import Faults, error, failed_events, sample
from localdev.cloud import LocalCloud
from localdev.cloud.aws import Request, Response
from localdev.cloud.lambdas import FunctionError


def face(width: float, **emotions: float) -> dict[str, Any]:
    return {
        "BoundingBox": {"Left": 0.1, "Top": 0.1, "Width": width, "Height": width},
        "Emotions": [{"Type": name, "Confidence": percent} for name, percent in emotions.items()],
    }


def faces(*found: dict[str, Any]) -> Response:
    return Response(json.dumps({"FaceDetails": found}).encode())


def upload(cloud: LocalCloud, key: str = "") -> dict[str, Any]:
    """The event of a fresh object, which is in the bucket; it is outside faces/, so that only the test sends it."""
    event = sample("s3_face_created")
    key = key or f"faces/press-4/{uuid.uuid4()}.jpg"
    event["Records"][0]["s3"]["object"]["key"] = key.replace(" ", "+")
    return event


def item(cloud: LocalCloud, event: dict[str, Any]) -> dict[str, str] | None:
    key = event["Records"][0]["s3"]["object"]["key"].replace("+", " ")
    found = cloud.aws.client("dynamodb").get_item(TableName="rekognize-faces", Key={"s3key": {"S": key}}).get("Item")
    if found is None:
        return None
    assert 29 * 86400 < float(found.pop("expires_at")["N"]) - time.time() < 31 * 86400, "as long as its picture"
    return {name: next(iter(value.values())) for name, value in found.items() if name != "s3key"}


def metric_calls(faults: Faults) -> list[list[dict[str, Any]]]:
    """The data points of each PutMetricData."""
    return [json.loads(call.body)["MetricData"] for call in faults.calls if call.service == "monitoring"]


def invoke(cloud: LocalCloud, event: dict[str, Any]) -> Any:
    return cloud.function("RekognizeEmotions").invoke(event)


def test_emotions_above_10_percent_of_the_largest_face_are_stored(cloud: LocalCloud, faults: Faults) -> None:
    small, large = face(0.2, SAD=99.0), face(0.5, HAPPY=61.2345, CALM=10.001, FEAR=10.0, SAD=3.1)
    faults.answer("rekognition", "DetectFaces", faces(small, large))
    event = upload(cloud)
    assert invoke(cloud, event) == {"stored": 1}
    assert item(cloud, event) == {"HAPPY": "61.23", "CALM": "10.00"}
    (points,) = metric_calls(faults)
    assert [(point["MetricName"], point["Unit"]) for point in points] == [
        *[("HAPPY", "Percent")] * 2,  # with and without the thing
        *[("CALM", "Percent")] * 2,
    ]
    assert {point["StorageResolution"] for point in points} == {1}, "what a graph with a point every 10 s needs"
    statistics = cloud.aws.client("cloudwatch").list_metrics(Namespace="EdgeML/Emotions", MetricName="HAPPY")["Metrics"]
    assert {json.dumps(m["Dimensions"]) for m in statistics} >= {"[]", '[{"Name": "thing", "Value": "press-4"}]'}


def test_the_same_event_twice_leaves_one_item_and_one_set_of_metrics(cloud: LocalCloud, faults: Faults) -> None:
    faults.answer("rekognition", "DetectFaces", faces(face(0.5, HAPPY=90)), faces(face(0.5, HAPPY=90)))
    event = upload(cloud)
    assert [invoke(cloud, event), invoke(cloud, event)] == [{"stored": 1}, {"repeated": 1}]
    assert len(metric_calls(faults)) == 1


def test_a_better_picture_of_the_same_object_is_looked_at_under_its_own_key(cloud: LocalCloud, faults: Faults) -> None:
    faults.answer("rekognition", "DetectFaces", faces(face(0.5, FEAR=90)), faces(face(0.5, CALM=90)))
    first, better = (upload(cloud, f"faces/press-4/2026/11/29/0-17-{number}.jpg") for number in range(2))
    assert [invoke(cloud, first), invoke(cloud, better)] == [{"stored": 1}, {"stored": 1}]
    assert [item(cloud, first), item(cloud, better)] == [{"FEAR": "90.00"}, {"CALM": "90.00"}]


def test_metrics_that_fail_take_the_item_back_so_that_a_retry_does_both(cloud: LocalCloud, faults: Faults) -> None:
    faults.answer("rekognition", "DetectFaces", faces(face(0.5, HAPPY=90)), faces(face(0.5, HAPPY=90)))
    faults.answer("monitoring", "PutMetricData", *[error("InternalServiceFault", 500)] * 2)
    event = upload(cloud)
    with pytest.raises(FunctionError, match=r"ExceptionGroup.*InternalServiceFault"):
        invoke(cloud, event)
    assert item(cloud, event) is None
    assert invoke(cloud, event) == {"stored": 1}
    assert item(cloud, event) == {"HAPPY": "90.00"}


def test_metrics_that_are_refused_for_good_cost_no_face(cloud: LocalCloud, faults: Faults) -> None:
    faults.answer("rekognition", "DetectFaces", *[faces(face(0.5, HAPPY=90))] * 2)
    faults.answer("monitoring", "PutMetricData", error("InvalidParameterValue"))
    event = upload(cloud)
    assert invoke(cloud, event) == {"stored": 1}
    assert item(cloud, event) == {"HAPPY": "90.00"}
    assert invoke(cloud, event) == {"repeated": 1}


@pytest.mark.parametrize(
    ("thing", "dimension"),
    [("press-4", True), ("a:b", True), ("", False), (" ", False), (":a", False), ("Größe", False), ("x" * 129, False)],
)
def test_a_folder_that_is_no_things_name_is_no_dimension(
    cloud: LocalCloud, faults: Faults, thing: str, dimension: bool
) -> None:
    faults.answer("rekognition", "DetectFaces", faces(face(0.5, HAPPY=90)))
    event = upload(cloud, f"faces/{thing}/{uuid.uuid4()}.jpg")
    assert invoke(cloud, event) == {"stored": 1}
    (points,) = metric_calls(faults)
    found = [point["Dimensions"] for point in points if point.get("Dimensions")]
    assert found == ([[{"Name": "thing", "Value": thing}]] if dimension else [])


def test_an_invocation_that_dies_after_its_claim_loses_no_metrics(cloud: LocalCloud, faults: Faults) -> None:
    faults.answer("rekognition", "DetectFaces", *[faces(face(0.5, HAPPY=90))] * 3)
    event, dynamodb = upload(cloud), cloud.aws.client("dynamodb")

    def die(request: Request) -> Response | None:
        if request.service != "monitoring":
            return None
        (pid,) = cloud.function("RekognizeEmotions").pids
        os.kill(pid, signal.SIGKILL)
        return Response(b"")

    cloud.aws.stand_ins.insert(1, die)
    try:
        with pytest.raises(FunctionError, match="the process ended"):
            invoke(cloud, event)
    finally:
        cloud.aws.stand_ins.remove(die)
    left = item(cloud, event)
    assert left is not None
    assert time.time() < float(left["claimed_until"]) < time.time() + 61, "as long as the function may run"
    with pytest.raises(FunctionError, match="is claimed by another invocation"):
        invoke(cloud, event)  # the other one may be alive
    dynamodb.update_item(
        TableName="rekognize-faces",
        Key={"s3key": {"S": event["Records"][0]["s3"]["object"]["key"]}},
        UpdateExpression="SET claimed_until = :past",
        ExpressionAttributeValues={":past": {"N": str(time.time() - 1)}},
    )
    assert invoke(cloud, event) == {"stored": 1}
    assert item(cloud, event) == {"HAPPY": "90.00"}
    assert len(metric_calls(faults)) == 2, "of which the first died"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (faces(), "no_face"),
        (faces(face(0.5, SAD=10.0)), "no_emotion"),
        (error("InvalidImageFormatException"), "not_an_image"),
        (error("ImageTooLargeException"), "not_an_image"),
        (error("InvalidParameterException"), "not_an_image"),
        (error("InvalidS3ObjectException"), "deleted"),
    ],
)
def test_images_without_an_answer_write_nothing(
    cloud: LocalCloud, faults: Faults, answer: Response, outcome: str
) -> None:
    faults.answer("rekognition", "DetectFaces", answer)
    event = upload(cloud)
    assert invoke(cloud, event) == {outcome: 1}
    assert item(cloud, event) is None
    assert metric_calls(faults) == []


def test_an_object_that_exists_but_cannot_be_read_is_an_error(cloud: LocalCloud, faults: Faults) -> None:
    event = upload(cloud)
    entity = event["Records"][0]["s3"]
    faults.answer("rekognition", "DetectFaces", faces(), error("InvalidS3ObjectException"))
    cloud.aws.client("s3").put_object(Bucket=entity["bucket"]["name"], Key=entity["object"]["key"], Body=b"x")
    cloud.drain()
    with pytest.raises(FunctionError, match="InvalidS3ObjectException"):
        invoke(cloud, event)


def test_several_records_and_quoted_keys(cloud: LocalCloud, faults: Faults) -> None:
    faults.answer("rekognition", "DetectFaces", faces(face(0.5, HAPPY=90)), faces(), faces(face(0.5, SAD=80)))
    event = upload(cloud)
    for key in ("faces/a/no-face.jpg", f"faces/a thing/ü+{uuid.uuid4()}.jpg"):
        event["Records"].append(copy.deepcopy(event["Records"][0]))
        quoted = key.replace("+", "%2B").replace("ü", "%C3%BC").replace(" ", "+")
        event["Records"][-1]["s3"]["object"]["key"] = quoted
    assert invoke(cloud, event) == {"stored": 2, "no_face": 1}
    stored = cloud.aws.client("dynamodb").get_item(TableName="rekognize-faces", Key={"s3key": {"S": key}})
    assert stored["Item"]["SAD"] == {"S": "80.00"}


def test_one_bad_record_does_not_keep_the_others_from_being_stored(cloud: LocalCloud, faults: Faults) -> None:
    faults.answer("rekognition", "DetectFaces", error("AccessDeniedException"), faces(face(0.5, SAD=80)))
    event, second = upload(cloud), upload(cloud)
    event["Records"] += second["Records"]
    with pytest.raises(FunctionError, match="AccessDeniedException"):
        invoke(cloud, event)
    assert item(cloud, second) == {"SAD": "80.00"}


def test_throttling_is_waited_out(cloud: LocalCloud, faults: Faults) -> None:
    faults.answer("rekognition", "DetectFaces", error("ThrottlingException"), faces(face(0.5, SAD=80)))
    assert invoke(cloud, upload(cloud)) == {"stored": 1}


def test_an_event_that_keeps_failing_is_tried_three_times_and_kept(cloud: LocalCloud, faults: Faults) -> None:
    faults.answer("rekognition", "DetectFaces", *[error("AccessDeniedException")] * 3)
    event = upload(cloud)
    cloud.send(cloud.function("RekognizeEmotions").setting.arn, event)
    cloud.drain()
    (kept,) = failed_events(cloud)
    assert kept["requestPayload"] == event
    assert kept["requestContext"]["approximateInvokeCount"] == 3
    assert kept["responsePayload"]["errorType"] == "ExceptionGroup"


def test_the_test_event_of_a_new_notification_is_taken(cloud: LocalCloud) -> None:
    assert invoke(cloud, sample("s3_test_event")) == {}
