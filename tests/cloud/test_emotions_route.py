"""A real face crop in S3 becomes an item and metrics, with nothing replaced by the test."""

from collections.abc import Iterator

import cv2
import pytest

from bundles import clips
from localdev.cloud import LocalCloud
from localdev.cloud.cloud import TEMPLATE


@pytest.fixture
def frame() -> Iterator[bytes]:
    capture = cv2.VideoCapture(str(clips.face_clip()))
    try:
        _, image = capture.read()
    finally:
        capture.release()
    yield bytes(cv2.imencode(".jpg", cv2.resize(image, None, fx=2, fy=2))[1])


def test_a_face_in_s3_becomes_an_item_and_metrics(frame: bytes) -> None:
    with LocalCloud(TEMPLATE, deliveries=2) as cloud:
        s3, bucket = cloud.aws.client("s3"), "edgeml-data-123456789012-us-east-1"
        s3.put_object(Bucket=bucket, Key="faces/press-4/1-0.jpg", Body=frame)
        s3.put_object(Bucket=bucket, Key="faces/press-4/empty.jpg", Body=b"")
        s3.put_object(Bucket=bucket, Key="snapshots/press-4/1.jpg", Body=frame)
        cloud.drain()
        (item,) = cloud.aws.client("dynamodb").scan(TableName="rekognize-faces")["Items"]
        assert item.pop("s3key") == {"S": "faces/press-4/1-0.jpg"}
        del item["expires_at"]
        assert item
        assert all(float(value["S"]) > 10 for value in item.values())
        metrics = cloud.aws.client("cloudwatch").list_metrics(Namespace="EdgeML/Emotions")["Metrics"]
        assert {metric["MetricName"] for metric in metrics} == set(item)
        things = {d["Value"] for metric in metrics for d in metric["Dimensions"]}
        assert things == {"press-4"}
