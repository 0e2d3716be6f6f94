"""S3 object under faces/ -> Rekognition DetectFaces -> CloudWatch metrics and one DynamoDB item.

The item is the claim on an image: it is written first, only if it does not exist, and taken back when the metrics
cannot be written. So an event that S3 or Lambda repeats changes nothing, and one that failed halfway is done again.
"""

import os
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.utilities.data_classes import S3Event
from aws_lambda_powertools.utilities.data_classes.s3_event import S3EventRecord
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config
from botocore.exceptions import ClientError

TABLE = os.environ["TABLE_NAME"]
NAMESPACE = os.environ["METRIC_NAMESPACE"]
THING_DIMENSION = os.environ.get("THING_DIMENSION", "true") == "true"
MIN_CONFIDENCE = float(os.environ.get("MIN_CONFIDENCE", "10"))  # percent

NEVER_AN_ANSWER = {"InvalidImageFormatException", "ImageTooLargeException", "InvalidParameterException"}

logger = Logger()
config = Config(connect_timeout=3, read_timeout=15, retries={"mode": "standard", "total_max_attempts": 4})
rekognition = boto3.client("rekognition", config=config)
cloudwatch = boto3.client("cloudwatch", config=config)
dynamodb = boto3.client("dynamodb", config=config)
s3 = boto3.client("s3", config=config)


@logger.inject_lambda_context(log_event=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:
    """Counts of images by outcome. Every record is tried before the first error is raised for Lambda to retry."""
    outcomes: dict[str, int] = {}
    errors: list[Exception] = []
    for record in S3Event(event).records if "Records" in event else ():  # s3:TestEvent has none
        try:
            outcome = handle(record)
        except ClientError as error:
            logger.exception("image failed", key=record.s3.get_object.key)
            errors.append(error)
            outcome = "failed"
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    logger.info("images", extra={"outcomes": outcomes})
    if errors:
        raise ExceptionGroup("; ".join(map(str, errors)), errors)
    return outcomes


def handle(record: S3EventRecord) -> str:
    """The outcome of one image: stored, repeated, no_face, no_emotion, not_an_image or deleted."""
    bucket, key = record.s3.bucket.name, unquote_plus(record.s3.get_object.key)
    image = {"S3Object": {"Bucket": bucket, "Name": key}}
    try:
        faces = rekognition.detect_faces(Image=image, Attributes=["ALL"])["FaceDetails"]
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in NEVER_AN_ANSWER:
            logger.warning("not an image that Rekognition takes", key=key, code=code)
            return "not_an_image"
        if code == "InvalidS3ObjectException" and not exists(bucket, key):
            logger.warning("object was deleted", key=key)
            return "deleted"
        raise
    if not faces:
        return "no_face"
    emotions = {e["Type"]: e["Confidence"] for e in largest(faces)["Emotions"] if e["Confidence"] > MIN_CONFIDENCE}
    return store(key, emotions, record.event_time) if emotions else "no_emotion"


def exists(bucket: str, key: str) -> bool:
    """Rekognition gives one error for an object that is gone and for one that it may not read."""
    try:
        s3.head_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
            return False
        raise
    return True


def largest(faces: list[dict[str, Any]]) -> dict[str, Any]:
    """Rekognition lists the largest face first, but documents that only for more than 100 faces."""
    return max(faces, key=lambda face: face["BoundingBox"]["Width"] * face["BoundingBox"]["Height"])


def store(key: str, emotions: dict[str, float], event_time: str) -> str:
    """Claims the image with its item, then writes its metrics."""
    item = {"s3key": {"S": key}, **{name: {"S": f"{percent:.2f}"} for name, percent in emotions.items()}}
    try:
        dynamodb.put_item(TableName=TABLE, Item=item, ConditionExpression="attribute_not_exists(s3key)")
    except dynamodb.exceptions.ConditionalCheckFailedException:
        return "repeated"
    try:
        cloudwatch.put_metric_data(Namespace=NAMESPACE, MetricData=metrics(key, emotions, event_time))
    except Exception:  # raised again
        dynamodb.delete_item(TableName=TABLE, Key={"s3key": {"S": key}})
        raise
    return "stored"


def metrics(key: str, emotions: dict[str, float], event_time: str) -> list[dict[str, Any]]:
    """Per emotion one metric without dimensions and, when the key is faces/<thing>/..., one of the thing."""
    parts = key.split("/")
    thing = [{"Name": "thing", "Value": parts[1]}] if THING_DIMENSION and len(parts) > 2 else None
    at = datetime.fromisoformat(event_time)
    resolution = 1  # second, so that the dashboard can draw a point every 10
    return [
        {
            "MetricName": name,
            "Value": percent,
            "Unit": "Percent",
            "Timestamp": at,
            "Dimensions": dimensions,
            "StorageResolution": resolution,
        }
        for name, percent in emotions.items()
        for dimensions in ([], thing)
        if dimensions is not None
    ]
