"""What AWS IoT refuses of a CreateJob request, and moto does not."""

import json
import re
from collections.abc import Callable
from typing import Any

from localdev.cloud.aws import Response

MAX_DOCUMENT = 32_768  # characters
DEFAULT_EXPIRY_S = 3600


def refusal(job_id: str, request: dict[str, Any], exists: bool, known: Callable[[str], bool]) -> Response | None:
    """The answer AWS would give instead of making the job, or None when it would make it."""
    if exists:
        return _error("ResourceAlreadyExistsException", 409, f"job {job_id} exists")
    unknown = [arn for arn in request.get("targets", []) if not known(arn)]
    if unknown:
        return _error("ResourceNotFoundException", 404, f"no such target: {', '.join(unknown)}")
    problem = _document_problem(request) or _plan_problem(job_id, request)
    return _error("InvalidRequestException", 400, problem) if problem else None


def _document_problem(request: dict[str, Any]) -> str:
    document = request.get("document")
    if document is None:
        return "documentSource is not implemented here" if request.get("documentSource") else "no job document"
    if len(document) > MAX_DOCUMENT:
        return f"the job document has {len(document)} characters, {MAX_DOCUMENT} are allowed"
    try:
        json.loads(document)
    except ValueError:
        return "the job document is not JSON"
    if "${aws:iot:s3-presigned-url" in document and not request.get("presignedUrlConfig", {}).get("roleArn"):
        return "a presigned URL placeholder needs presignedUrlConfig.roleArn"
    return ""


def _plan_problem(job_id: str, request: dict[str, Any]) -> str:
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", job_id):
        return f"job id {job_id!r}"
    if request.get("targetSelection", "SNAPSHOT") not in ("SNAPSHOT", "CONTINUOUS"):
        return f"targetSelection {request['targetSelection']!r} is neither SNAPSHOT nor CONTINUOUS"
    rollout = request.get("jobExecutionsRolloutConfig") or {}
    growth = rollout.get("exponentialRate") or {}
    ranges: list[tuple[str, Any, float, float]] = [
        ("expiresInSec", request.get("presignedUrlConfig", {}).get("expiresInSec"), 60, 3600),
        ("maximumPerMinute", rollout.get("maximumPerMinute"), 1, 1000),
        ("baseRatePerMinute", growth.get("baseRatePerMinute"), 1, 1000),
        ("incrementFactor", growth.get("incrementFactor"), 1.1, 5),
        ("inProgressTimeoutInMinutes", request.get("timeoutConfig", {}).get("inProgressTimeoutInMinutes"), 1, 10_080),
    ]
    for criterion in request.get("abortConfig", {}).get("criteriaList", []):
        ranges.append(("thresholdPercentage", criterion["thresholdPercentage"], 0, 100))
        ranges.append(("minNumberOfExecutedThings", criterion["minNumberOfExecutedThings"], 1, float("inf")))
    for name, value, low, high in ranges:
        if value is not None and not low <= value <= high:
            return f"{name} {value} is not between {low} and {high}"
    return ""


def _error(code: str, status: int, message: str) -> Response:
    headers = {"Content-Type": "application/json", "x-amzn-ErrorType": code}
    return Response(json.dumps({"message": message}).encode(), status, headers)
