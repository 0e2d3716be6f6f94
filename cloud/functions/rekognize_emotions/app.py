"""S3 object under faces/ -> Rekognition DetectFaces -> CloudWatch metrics and one DynamoDB item.

The item is the claim on an image: it is written first, only if there is none, with the time at which this invocation
is over at the latest; that is taken out once the metrics are written, or refused for good: the item stays in any case.
A repeated event that finds a finished item changes nothing. One that finds a claim fails, for Lambda to try again, and
takes over a claim whose time is over. So an invocation that dies halfway loses no metrics; one that dies between the
metrics and the end writes them twice. An item expires with its picture.
"""

import os
import re
import time
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.data_classes import S3Event
from aws_lambda_powertools.utilities.data_classes.s3_event import S3EventRecord
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

METRICS_PREFIX = os.environ.get("METRICS_PREFIX", "EdgeML")
TABLE = os.environ["TABLE_NAME"]
NAMESPACE = os.environ["METRIC_NAMESPACE"]
THING_DIMENSION = os.environ.get("THING_DIMENSION", "true") == "true"
MIN_CONFIDENCE = float(os.environ.get("MIN_CONFIDENCE", "10"))  # percent

NEVER_AN_ANSWER = {"InvalidImageFormatException", "ImageTooLargeException", "InvalidParameterException"}
COUNTED = {"stored": "Faces", "no_face": "NoFace", "not_an_image": "NotAnImage"}  # outcome -> metric
CLAIM, EXPIRES = "claimed_until", "expires_at"  # Unix seconds; DynamoDB deletes what has expired
EXPIRE_DAYS = int(os.environ.get("EXPIRE_DAYS", "30"))  # as the bucket does with the picture
THING = re.compile(r"[a-zA-Z0-9_-][a-zA-Z0-9:_-]{0,127}")  # a thing's name that can be a dimension
REFUSED = {
    "InvalidParameterValue",
    "InvalidParameterCombination",
    "MissingParameter",
    "InvalidFormat",
    "ValidationError",
}

logger = Logger()
metrics = Metrics(namespace=f"{METRICS_PREFIX}/Faces")
# Together within the function's timeout, even if every attempt hangs.
looking = Config(connect_timeout=1, read_timeout=6, retries={"mode": "standard", "total_max_attempts": 3})
config = Config(connect_timeout=1, read_timeout=3, retries={"mode": "standard", "total_max_attempts": 2})
rekognition = boto3.client("rekognition", config=looking)
cloudwatch = boto3.client("cloudwatch", config=config)
dynamodb = boto3.client("dynamodb", config=config)
s3 = boto3.client("s3", config=config)


class Busy(Exception):  # noqa: N818  (an event, which Lambda answers by another try)
    """Another invocation has claimed the image and may be at work on it, or has died."""


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:
    """Counts of images by outcome. Every record is tried before the first error is raised for Lambda to retry."""
    outcomes: dict[str, int] = {}
    errors: list[Exception] = []
    for record in S3Event(event).records if "Records" in event else ():  # s3:TestEvent has none
        try:
            outcome = handle(record, time.time() + context.get_remaining_time_in_millis() / 1000)
        except (ClientError, BotoCoreError, Busy, ValueError) as error:
            logger.exception("image failed", key=record.s3.get_object.key)
            errors.append(error)
            outcome = "failed"
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
    for outcome, name in COUNTED.items():
        metrics.add_metric(name=name, unit=MetricUnit.Count, value=outcomes.get(outcome, 0))
    logger.info("images", extra={"outcomes": outcomes})
    if errors:
        raise ExceptionGroup("; ".join(map(str, errors)), errors)
    return outcomes


def handle(record: S3EventRecord, deadline: float) -> str:
    """The outcome of one image: stored, repeated, no_face, no_emotion, not_an_image or deleted.

    `deadline` is the Unix time at which this invocation is over. Raises Busy, and errors of AWS.
    """
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
    return store(key, emotions, record.event_time, deadline) if emotions else "no_emotion"


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


def store(key: str, emotions: dict[str, float], event_time: str, deadline: float) -> str:
    """Claims the image with its item, writes its metrics, ends the claim."""
    item = {"s3key": {"S": key}, **{name: {"S": f"{percent:.2f}"} for name, percent in emotions.items()}}
    item[EXPIRES] = {"N": str(int(time.time()) + EXPIRE_DAYS * 86400)}
    try:
        dynamodb.put_item(
            TableName=TABLE,
            Item=item | {CLAIM: {"N": f"{deadline:.3f}"}},
            ConditionExpression=f"attribute_not_exists(s3key) OR {CLAIM} < :now",
            ExpressionAttributeValues={":now": {"N": f"{time.time():.3f}"}},
            ReturnValuesOnConditionCheckFailure="ALL_OLD",
        )
    except dynamodb.exceptions.ConditionalCheckFailedException as error:
        if CLAIM in error.response["Item"]:
            raise Busy(f"{key} is claimed by another invocation") from error
        return "repeated"
    try:
        cloudwatch.put_metric_data(Namespace=NAMESPACE, MetricData=points(key, emotions, event_time))
    except Exception as error:  # raised again, unless no other attempt could do better
        if not refused(error):
            dynamodb.delete_item(TableName=TABLE, Key={"s3key": {"S": key}})
            raise
        logger.exception("metrics refused, the item is stored without", key=key)
        metrics.add_metric(name="MetricsRefused", unit=MetricUnit.Count, value=1)
    dynamodb.put_item(TableName=TABLE, Item=item)
    return "stored"


def refused(error: Exception) -> bool:
    """Whether CloudWatch, or the SDK before it, will never take these metrics: an event of three weeks ago, say."""
    if isinstance(error, ClientError):
        return error.response["Error"]["Code"] in REFUSED
    return isinstance(error, ParamValidationError | ValueError)


def points(key: str, emotions: dict[str, float], event_time: str) -> list[dict[str, Any]]:
    """Per emotion one metric without dimensions and, when the key is faces/<thing>/..., one of the thing.

    A key whose thing has a name that no thing can have counts in the first one alone.
    """
    parts = key.split("/")
    named = THING_DIMENSION and len(parts) > 2 and THING.fullmatch(parts[1])
    thing = [{"Name": "thing", "Value": parts[1]}] if named else None
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
