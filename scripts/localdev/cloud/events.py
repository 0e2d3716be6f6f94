"""Events in the shapes in which AWS hands them to Lambda."""

import itertools
import json
import time
import uuid
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus

from localdev.cloud.aws import ACCOUNT, REGION

_sequence = itertools.count(time.time_ns())


def timestamp() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def s3(bucket: str, key: str, name: str, size: int, etag: str, version: str) -> dict[str, Any]:
    """An S3 notification. `name` is like ObjectCreated:Put; the key is quoted as S3 does, "/" left as it is."""
    entity = {"key": quote_plus(key, safe="/"), "size": size, "eTag": etag, "sequencer": f"{next(_sequence):018X}"}
    if version:
        entity["versionId"] = version
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": REGION,
        "eventTime": timestamp(),
        "eventName": name,
        "userIdentity": {"principalId": "AWS:AIDALOCAL"},
        "requestParameters": {"sourceIPAddress": "127.0.0.1"},
        "responseElements": {"x-amz-request-id": uuid.uuid4().hex[:16].upper(), "x-amz-id-2": uuid.uuid4().hex},
        "s3": {
            "s3SchemaVersion": "1.0",
            "configurationId": "local",
            "bucket": {
                "name": bucket,
                "ownerIdentity": {"principalId": "ALOCAL"},
                "arn": f"arn:aws:s3:::{bucket}",
            },
            "object": entity,
        },
    }
    return {"Records": [record]}


def sns(topic: str, message: str, subject: str | None, attributes: dict[str, dict[str, str]]) -> dict[str, Any]:
    """An SNS delivery to Lambda: always one record."""
    record = {
        "EventSource": "aws:sns",
        "EventVersion": "1.0",
        "EventSubscriptionArn": f"{topic}:{uuid.uuid4()}",
        "Sns": {
            "Type": "Notification",
            "MessageId": str(uuid.uuid4()),
            "TopicArn": topic,
            "Subject": subject,
            "Message": message,
            "Timestamp": timestamp(),
            "SignatureVersion": "1",
            "Signature": "local",
            "SigningCertUrl": "https://sns.local/cert.pem",
            "UnsubscribeUrl": "https://sns.local/unsubscribe",
            "MessageAttributes": attributes,
        },
    }
    return {"Records": [record]}


def eventbridge(source: str, detail_type: str, detail: dict[str, Any], resources: list[str]) -> dict[str, Any]:
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": detail_type,
        "source": source,
        "account": ACCOUNT,
        "time": timestamp()[:19] + "Z",
        "region": REGION,
        "resources": resources,
        "detail": detail,
    }


def api(method: str, path: str, stage: str, query: dict[str, list[str]], headers: dict[str, str]) -> dict[str, Any]:
    """A request as API Gateway's REST APIs hand it to Lambda (proxy integration, payload 1.0)."""
    now = datetime.now(UTC)
    host, key = headers.get("host", "local"), headers.get("x-api-key")
    caller = dict.fromkeys(("accessKey", "accountId", "caller", "user", "userArn"))
    caller |= {f"cognito{name}": None for name in ("AuthenticationProvider", "AuthenticationType")}
    caller |= {f"cognito{name}": None for name in ("IdentityId", "IdentityPoolId")}
    if key:
        caller |= {"apiKey": key, "apiKeyId": "local"}
    return {
        "resource": path,
        "path": path,
        "httpMethod": method,
        "headers": headers or None,
        "multiValueHeaders": {name: [value] for name, value in headers.items()} or None,
        "queryStringParameters": {name: values[-1] for name, values in query.items()} or None,
        "multiValueQueryStringParameters": query or None,
        "pathParameters": None,
        "stageVariables": None,
        "requestContext": {
            "accountId": ACCOUNT,
            "apiId": "local",
            "domainName": host,
            "domainPrefix": host.partition(".")[0],
            "extendedRequestId": uuid.uuid4().hex,
            "httpMethod": method,
            "identity": {**caller, "sourceIp": "127.0.0.1", "userAgent": headers.get("user-agent")},
            "path": f"/{stage}{path}",
            "protocol": "HTTP/1.1",
            "requestId": str(uuid.uuid4()),
            "requestTime": now.strftime("%d/%b/%Y:%H:%M:%S +0000"),
            "requestTimeEpoch": int(now.timestamp() * 1000),
            "resourceId": "local",
            "resourcePath": path,
            "stage": stage,
        },
        "body": None,
        "isBase64Encoded": False,
    }


def matches(pattern: dict[str, Any], event: Any) -> bool:
    """EventBridge's pattern matching: every field of the pattern is in the event with one of the values listed."""
    for key, wanted in pattern.items():
        found = event.get(key) if isinstance(event, dict) else None
        if isinstance(wanted, dict):
            if not matches(wanted, found):
                return False
        elif not any(_matches_value(option, found) for option in wanted):
            return False
    return True


def _matches_value(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, dict):
        ((operator, operand),) = wanted.items()
        match operator:
            case "prefix":
                return isinstance(found, str) and found.startswith(operand)
            case "exists":
                return bool((found is not None) == operand)
        raise ValueError(f"pattern operator {operator} is not implemented here")
    options: list[Any] = found if isinstance(found, list) else [found]
    return bool(wanted in options)


def transformed(target: dict[str, Any], event: dict[str, Any]) -> Any:
    """What a target gets: the event, its part at InputPath, or InputTransformer's template with `<name>` filled in."""
    if "InputPath" in target:
        return _at(event, target["InputPath"])
    if "InputTransformer" not in target:
        return event
    text = target["InputTransformer"]["InputTemplate"]
    for name, path in target["InputTransformer"].get("InputPathsMap", {}).items():
        value = _at(event, path)
        text = text.replace(f"<{name}>", value if isinstance(value, str) else json.dumps(value))
    return json.loads(text)


def _at(value: Any, path: str) -> Any:
    for part in path.removeprefix("$.").split("."):
        value = value.get(part, "") if isinstance(value, dict) else ""
    return value
