"""Messages of device/<thing>/logs -> CloudWatch Logs, one stream per message type.

The event is what the IoT rule's SQL selects: the message with `client_id` and `topic` added. A line holds
`ts device values...` in stream rawdata and `ts device model version anomalies... values...` in stream inference,
separated by blanks, so that Logs Insights parses it.

AWS delivers at least once. A message that is delivered twice writes the same line with the same timestamp twice, which
the dashboard's queries count once, by (ts, device); the metrics Lines and Anomalies count it twice, which alarms on
"none" and "many" bear, and remembering each message would cost more than its line. An attempt that fails counts
nothing of its message but Refused, once for each of Lambda's three attempts.
"""

import contextlib
import os
from collections.abc import Callable
from typing import Any

import boto3
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config

LOG_GROUP = os.environ["LOG_GROUP"]

logger = Logger()
metrics = Metrics(namespace="EdgeML/Turbine")
# Four calls at most, together within the function's timeout even if every attempt hangs.
config = Config(connect_timeout=1, read_timeout=2, retries={"mode": "standard", "total_max_attempts": 3})
logs = boto3.client("logs", config=config)


class MessageError(ValueError):
    """A message is not one of those that devices send; trying again would not help."""


@logger.inject_lambda_context
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> None:
    """Writes one line. Raises MessageError; Lambda then keeps the event in the queue of failed events."""
    try:
        ingest(event)
    except MessageError as reason:
        logger.error("message refused", client_id=event.get("client_id"), reason=str(reason))
        metrics.add_metric(name="Refused", unit=MetricUnit.Count, value=1)
        raise
    metrics.add_metric(name="Lines", unit=MetricUnit.Count, value=1)
    if anomalies := sum(map(bool, event.get("anomalies", ()))):
        metrics.add_metric(name="Anomalies", unit=MetricUnit.Count, value=anomalies)


def ingest(event: dict[str, Any]) -> None:
    kind = event.get("type")
    line = LINES.get(kind) if isinstance(kind, str) else None
    if line is None:
        raise MessageError(f"type {kind!r} from {event.get('client_id')}: expected one of {', '.join(LINES)}")
    try:
        seconds, message = line(event, device(event))
    except (LookupError, TypeError, ValueError) as error:
        raise MessageError(f"{kind} from {event.get('client_id')}: {error!r}") from error
    write(str(kind), round(seconds * 1000), message)


def device(event: dict[str, Any]) -> str:
    """The thing's name, the second level of device/<thing>/logs; a blank would shift the fields of the line."""
    name = str(event["topic"]).split("/")[1]
    if not name or name.split() != [name]:
        raise ValueError(f"topic {event['topic']!r} names no thing")
    return name


def rawdata(event: dict[str, Any], thing: str) -> tuple[float, str]:
    data = event["data"]
    return float(data["ts"]), f"{data['ts']} {thing} {numbers(data['values'])}"


def inference(event: dict[str, Any], thing: str) -> tuple[float, str]:
    if len(event["anomalies"]) != len(event["values"]):
        raise ValueError(f"{len(event['anomalies'])} anomalies of {len(event['values'])} values")
    model, version = word(event["model_name"]), word(event["model_version"])
    anomalies, values = numbers(event["anomalies"]), numbers(event["values"])
    return float(event["ts"]), f"{event['ts']} {thing} {model} {version} {anomalies} {values}"


LINES: dict[str, Callable[[dict[str, Any], str], tuple[float, str]]] = {"rawdata": rawdata, "inference": inference}


def numbers(values: list[float]) -> str:
    """Numbers with up to 6 digits, booleans as 0 and 1."""
    return " ".join(f"{float(value):.6g}" for value in values)


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
