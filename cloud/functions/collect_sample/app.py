"""SNS -> Firehose -> S3: every message becomes one line of a sample file.

A message that SNS or Lambda delivers twice is written and counted once: its MessageId is remembered for an hour.
"""

import json
import os
import re
import time
from typing import Any

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.data_classes import SNSEvent
from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer, IdempotencyConfig, idempotent
from aws_lambda_powertools.utilities.idempotency.persistence.datarecord import DataRecord
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config

METRICS_PREFIX = os.environ.get("METRICS_PREFIX", "EdgeML")
STREAM = os.environ["DELIVERY_STREAM"]
FAILED_QUEUE = os.environ["FAILED_QUEUE_URL"]
FURTHER_CONNECTION = re.compile(r"#[0-9]+$")
SHOWN = 10_000  # characters of a refused sample: a message in the queue has at most 262,144 bytes
MAX_RECORD_BYTES = 1_024_000  # of Firehose, before base64
MAX_BATCH_BYTES = 4 * 1024 * 1024
MAX_BATCH_RECORDS = 500
ATTEMPTS = 3

logger = Logger()
metrics = Metrics(namespace=f"{METRICS_PREFIX}/Samples")
# An event of SNS has one record. Its calls end within the function's timeout, even if every attempt hangs.
retries = {"mode": "standard", "total_max_attempts": 2}
firehose = boto3.client("firehose", config=Config(connect_timeout=1, read_timeout=5, retries=retries))
dynamodb = boto3.client("dynamodb", config=Config(connect_timeout=1, read_timeout=2, retries=retries))
sqs = boto3.client("sqs", config=Config(connect_timeout=1, read_timeout=2, retries=retries))
seen = DynamoDBPersistenceLayer(table_name=os.environ["IDEMPOTENCY_TABLE"], boto3_client=dynamodb)


class SampleError(Exception):
    """Firehose kept refusing samples."""


class Refused(ValueError):  # noqa: N818  (a verdict on the sample)
    """No attempt would store this sample."""


def repeated(response: Any, idempotent_data: DataRecord) -> Any:
    """Counts a repeated event, whose earlier answer is given again."""
    metrics.add_metric(name="Repeated", unit=MetricUnit.Count, value=1)
    return response


@logger.inject_lambda_context
@metrics.log_metrics
@idempotent(
    persistence_store=seen,
    config=IdempotencyConfig(
        event_key_jmespath="Records[].Sns.MessageId", raise_on_no_idempotency_key=True, response_hook=repeated
    ),
)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:
    """How many samples were written. Raises SampleError, and Lambda tries again, then keeps the event."""
    samples = []
    for record in SNSEvent(event).records:
        try:
            samples.append(line(record.sns.message))
        except Refused as reason:
            set_aside(record.sns.message, str(reason))
    for batch in batches(samples):
        send(batch)
    metrics.add_metric(name="Samples", unit=MetricUnit.Count, value=len(samples))
    return {"samples": len(samples)}


def line(message: str) -> bytes:
    """The message on one line: JSON is made compact, other text becomes a JSON string when it has line breaks.

    Half of a surrogate pair, as in a text that was cut in the middle of an emoji, is written as JSON escapes it. What
    Python reads as JSON and others do not (NaN, numbers without end) is text.
    """
    value: Any = message
    try:
        value = json.loads(message, parse_constant=_no_json)
        check_publisher(value)
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except Refused:
        raise
    except (ValueError, RecursionError):
        value = message
        text = message if message.splitlines() == [message] else json.dumps(message, ensure_ascii=False)
    try:
        data = text.encode() + b"\n"
    except UnicodeEncodeError:
        data = json.dumps(value, separators=(",", ":")).encode() + b"\n"
    if len(data) > MAX_RECORD_BYTES:
        raise Refused(f"a sample has {len(data)} bytes, Firehose takes {MAX_RECORD_BYTES}")
    return data


def check_publisher(sample: Any) -> None:
    """A device's sample names its thing, and the client that published it, as the IoT rule adds them; both are one.

    A core's client ids are its thing's name, with `#2` and so on for further connections. Raises Refused.
    """
    if isinstance(sample, dict) and "thing" in sample and "publisher" in sample:
        client, thing = str(sample["publisher"]), str(sample["thing"])
        if FURTHER_CONNECTION.sub("", client) != thing:
            raise Refused(f"client {client[:128]!r} speaks for {thing[:128]!r}")


def _no_json(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def set_aside(message: str, reason: str) -> None:
    """Into the queue of failed events at once, in the form that Lambda uses there: no attempt would do better."""
    logger.error("sample refused", extra={"reason": reason, "characters": len(message)})
    metrics.add_metric(name="Refused", unit=MetricUnit.Count, value=1)
    body = {"requestPayload": message[:SHOWN], "responsePayload": {"errorMessage": reason}}
    sqs.send_message(QueueUrl=FAILED_QUEUE, MessageBody=json.dumps(body))


def batches(lines: list[bytes]) -> list[list[bytes]]:
    """The lines in order, in groups that PutRecordBatch takes."""
    groups: list[list[bytes]] = [[]]
    size = 0
    for data in lines:
        if groups[-1] and (len(groups[-1]) == MAX_BATCH_RECORDS or size + len(data) > MAX_BATCH_BYTES):
            groups.append([])
            size = 0
        groups[-1].append(data)
        size += len(data)
    return groups if groups[0] else []


def send(lines: list[bytes]) -> None:
    """PutRecordBatch may take some records and refuse others: only those are sent again."""
    errors: set[str] = set()
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(0.1 * 2**attempt)
        answer = firehose.put_record_batch(DeliveryStreamName=STREAM, Records=[{"Data": data} for data in lines])
        results = answer["RequestResponses"]
        errors = {result["ErrorCode"] for result in results if "ErrorCode" in result}
        lines = [data for data, result in zip(lines, results, strict=True) if "ErrorCode" in result]
        if not lines:
            return
        metrics.add_metric(name="Retried", unit=MetricUnit.Count, value=len(lines))
        logger.warning("records refused", extra={"count": len(lines), "errors": sorted(errors), "attempt": attempt + 1})
    raise SampleError(f"Firehose refused {len(lines)} records {ATTEMPTS} times: {', '.join(sorted(errors))}")
