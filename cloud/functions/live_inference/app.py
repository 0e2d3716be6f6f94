"""GET /liveinference?features=1.0,2.5,... -> SageMaker endpoint -> its answer."""

import math
import os
import re
from http import HTTPStatus
from typing import Any

import boto3
from aws_lambda_powertools import Logger
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, CORSConfig, Response, content_types
from aws_lambda_powertools.event_handler.exceptions import BadRequestError
from aws_lambda_powertools.logging import correlation_paths
from aws_lambda_powertools.metrics import Metrics, MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConnectTimeoutError, ReadTimeoutError

METRICS_PREFIX = os.environ.get("METRICS_PREFIX", "EdgeML")
ENDPOINT = os.environ["ENDPOINT_NAME"]
MAX_FEATURES = int(os.environ.get("MAX_FEATURES", "1000"))
TIMEOUT_S = float(os.environ.get("ENDPOINT_TIMEOUT_S", "20"))  # API Gateway gives up after 29
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")  # float() takes 1_000 and other scripts, too
MAX_CHARACTERS = 7000  # API Gateway takes 10,240 bytes of headers and query together

logger = Logger()
metrics = Metrics(namespace=f"{METRICS_PREFIX}/LiveInference")
# One attempt: the caller asks again sooner than a retry would answer.
config = Config(connect_timeout=2, read_timeout=TIMEOUT_S, retries={"mode": "standard", "total_max_attempts": 1})
runtime = boto3.client("sagemaker-runtime", config=config)
app = APIGatewayRestResolver(
    cors=CORSConfig(allow_origin=os.environ.get("ALLOW_ORIGIN", "*"), allow_headers=["x-api-key"], max_age=600)
)


@logger.inject_lambda_context(correlation_id_path=correlation_paths.API_GATEWAY_REST)
@metrics.log_metrics
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    return app.resolve(event, context)


@app.get("/liveinference")
def live_inference() -> Response[Any]:
    """The endpoint's answer as it is; 400, 502 and 504 as JSON `{"statusCode", "message"}`."""
    try:
        row = parsed(app.current_event.get_query_string_value("features", "") or "")
    except BadRequestError:
        metrics.add_metric(name="BadRequests", unit=MetricUnit.Count, value=1)
        raise
    try:
        answer = runtime.invoke_endpoint(EndpointName=ENDPOINT, ContentType="text/csv", Accept="*/*", Body=row)
        body = answer["Body"].read().decode()
    except (ConnectTimeoutError, ReadTimeoutError):
        logger.error("endpoint did not answer in time", endpoint=ENDPOINT, timeout_s=TIMEOUT_S)
        return failed(HTTPStatus.GATEWAY_TIMEOUT, "the model did not answer in time")
    except ClientError as error:
        code = error.response["Error"]["Code"]
        logger.exception("endpoint failed", endpoint=ENDPOINT, code=code)
        return failed(HTTPStatus.BAD_GATEWAY, f"the model endpoint failed: {code}")
    except (BotoCoreError, UnicodeDecodeError):
        logger.exception("endpoint failed", endpoint=ENDPOINT)
        return failed(HTTPStatus.BAD_GATEWAY, "the model endpoint failed")
    metrics.add_metric(name="Inferences", unit=MetricUnit.Count, value=1)
    return Response(HTTPStatus.OK, answer.get("ContentType") or content_types.TEXT_PLAIN, body)


def parsed(features: str) -> str:
    """The row for the model, checked number by number. Raises BadRequestError, which answers 400."""
    if not features.strip():
        raise BadRequestError("features is missing: give numbers separated by commas")
    if len(features) > MAX_CHARACTERS:
        raise BadRequestError(f"features has {len(features)} characters, {MAX_CHARACTERS} are allowed")
    fields = [field.strip() for field in features.split(",")]
    if len(fields) > MAX_FEATURES:
        raise BadRequestError(f"features has {len(fields)} numbers, {MAX_FEATURES} are allowed")
    for position, field in enumerate(fields, 1):
        if not NUMBER.fullmatch(field) or not math.isfinite(float(field)):
            raise BadRequestError(f"feature {position} is not a finite number: {field[:40]!r}")
    return ",".join(fields)


def failed(status: HTTPStatus, message: str) -> Response[dict[str, Any]]:
    metrics.add_metric(name="EndpointErrors", unit=MetricUnit.Count, value=1)
    return Response(status, content_types.APPLICATION_JSON, {"statusCode": status.value, "message": message})
