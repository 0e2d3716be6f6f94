"""Messages of device/<thing>/logs -> CloudWatch Logs, one stream per message type.

The event is what the IoT rule's SQL selects: the message with `client_id` and `topic` added. A line holds
`ts device values...` in stream rawdata and `ts device model version anomalies... values...` in stream inference,
separated by blanks, so that Logs Insights parses it.

AWS delivers at least once. A message that is delivered twice writes the same line with the same timestamp twice, which
the dashboard's queries count once, by (ts, device); the metrics Lines and Anomalies count it twice, which alarms on
"none" and "many" bear, and remembering each message would cost more than its line. A message that is not one of those
that devices send goes to the queue of failed events at once, with the reason: no other attempt would do better.
"""

import contextlib
import json
import math
import os
import re
from collections.abc import Callable
from typing import Any

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config

METRICS_PREFIX = os.environ.get("METRICS_PREFIX", "EdgeML")
LOG_GROUP = os.environ["LOG_GROUP"]
FAILED_QUEUE = os.environ["FAILED_QUEUE_URL"]
MAX_BODY = 240_000  # bytes; a message in the queue has at most 262,144
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")  # float() takes 1_000 and other scripts, too
LATEST_S = 4_102_444_800  # 2100: what lies beyond is no time that CloudWatch Logs takes
FURTHER_CONNECTION = re.compile(r"#[0-9]+$")  # of the Java nucleus, which has 50 subscriptions on each

logger = Logger()
metrics = Metrics(namespace=f"{METRICS_PREFIX}/Turbine")
# Four calls at most, together within the function's timeout even if every attempt hangs.
config = Config(connect_timeout=1, read_timeout=2, retries={"mode": "standard", "total_max_attempts": 3})
logs = boto3.client("logs", config=config)
sqs = boto3.client("sqs", config=config)


class MessageError(ValueError):
    """A message is not one of those that devices send; trying again would not help."""


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    """Writes one line, or hands over a message that is none. Raises errors of AWS, for Lambda to try again."""
    try:
        kind, seconds, message, anomalies = parsed(event)
        write(kind, round(seconds * 1000), message)
    except MessageError as reason:
        set_aside(event, str(reason))
        return
    metrics.add_metric(name="Lines", unit=MetricUnit.Count, value=1)
    if anomalies:
        metrics.add_metric(name="Anomalies", unit=MetricUnit.Count, value=anomalies)


def set_aside(event: dict[str, Any], reason: str) -> None:
    """Into the queue of failed events, in the form that Lambda uses there."""
    logger.error("message refused", client_id=event.get("client_id"), reason=reason)
    metrics.add_metric(name="Refused", unit=MetricUnit.Count, value=1)
    body = json.dumps({"requestPayload": event, "responsePayload": {"errorMessage": reason}})
    if len(body) > MAX_BODY:
        body = json.dumps({"requestPayload": body[: MAX_BODY // 8], "responsePayload": {"errorMessage": reason}})
    sqs.send_message(QueueUrl=FAILED_QUEUE, MessageBody=body)


def parsed(event: dict[str, Any]) -> tuple[str, float, str, int]:
    """Stream, time in seconds, line, and how many anomalies it tells of. Raises MessageError."""
    kind = event.get("type")
    line = LINES.get(kind) if isinstance(kind, str) else None
    if line is None:
        raise MessageError(
            f"type {str(kind)[:100]!r} from {event.get('client_id')}: expected one of {', '.join(LINES)}"
        )
    try:
        seconds, message = line(event, device(event))
        if not 0 <= seconds <= LATEST_S:
            raise ValueError(f"ts {seconds:g} is no time")
        anomalies = sum(map(bool, event["anomalies"])) if line is inference else 0
    except (LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise MessageError(f"{kind} from {event.get('client_id')}: {str(error)[:500] or error!r}") from error
    # Half of a surrogate pair, as in a name that was cut in the middle of an emoji, is no text for CloudWatch.
    return str(kind), seconds, message.encode(errors="replace").decode(), anomalies


def device(event: dict[str, Any]) -> str:
    """The thing's name, the second level of device/<thing>/logs; a blank would shift the fields of the line.

    Whoever publishes speaks for itself: client ids of a core are its thing's name, with `#2` and so on.
    """
    name = str(event["topic"]).split("/")[1]
    if not name or name.split() != [name]:
        raise ValueError(f"topic {event['topic']!r} names no thing")
    client = event.get("client_id")
    if client is not None and FURTHER_CONNECTION.sub("", str(client)) != name:
        raise ValueError(f"client {str(client)[:128]!r} speaks for {name}")
    return name


def rawdata(event: dict[str, Any], thing: str) -> tuple[float, str]:
    data = event["data"]
    return number(data["ts"]), f"{data['ts']} {thing} {numbers(data['values'])}"


def inference(event: dict[str, Any], thing: str) -> tuple[float, str]:
    anomalies, values = numbers(event["anomalies"]), numbers(event["values"])
    if len(event["anomalies"]) != len(event["values"]):
        raise ValueError(f"{len(event['anomalies'])} anomalies of {len(event['values'])} values")
    model, version = word(event["model_name"]), word(event["model_version"])
    return number(event["ts"]), f"{event['ts']} {thing} {model} {version} {anomalies} {values}"


LINES: dict[str, Callable[[dict[str, Any], str], tuple[float, str]]] = {"rawdata": rawdata, "inference": inference}


def number(value: Any) -> float:
    """A finite number, or text that is one. Raises ValueError."""
    if isinstance(value, str) and not NUMBER.fullmatch(value):
        raise ValueError(f"expected a number, found {value[:40]!r}")
    if not isinstance(value, str | int | float) or not math.isfinite(float(value)):
        raise ValueError(f"expected a finite number, found {str(value)[:40]}")
    return float(value)


def numbers(values: Any) -> str:
    """A list of numbers with up to 6 digits, booleans as 0 and 1. Raises ValueError."""
    if not isinstance(values, list):
        raise ValueError(f"expected a list of numbers, found {str(values)[:40]}")
    return " ".join(f"{number(value):.6g}" for value in values)


def word(value: Any) -> str:
    return "_".join(str(value).split()) or "-"


def write(stream: str, milliseconds: int, message: str) -> None:
    """Creates the stream when it is missing. Raises MessageError for a time that CloudWatch Logs does not take."""
    event = {"timestamp": milliseconds, "message": message}
    try:
        answer = logs.put_log_events(logGroupName=LOG_GROUP, logStreamName=stream, logEvents=[event])
    except logs.exceptions.ResourceNotFoundException:
        create(stream)
        answer = logs.put_log_events(logGroupName=LOG_GROUP, logStreamName=stream, logEvents=[event])
    if rejected := answer.get("rejectedLogEventsInfo"):
        raise MessageError(f"{message}: CloudWatch Logs refuses its time: {rejected}")


def create(stream: str) -> None:
    for make, names in (
        (logs.create_log_group, {"logGroupName": LOG_GROUP}),
        (logs.create_log_stream, {"logGroupName": LOG_GROUP, "logStreamName": stream}),
    ):
        # The template's group, or another invocation was faster.
        with contextlib.suppress(logs.exceptions.ResourceAlreadyExistsException):
            make(**names)
