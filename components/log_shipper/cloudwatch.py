"""CloudWatch Logs by its JSON API: PutLogEvents, and what makes the group and the stream when they are missing."""

import logging
import os
import time
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from edgeml import redact
from edgeml.errors import ConfigError
from edgeml.log import kv
from log_shipper.batch import Batch
from log_shipper.credentials import Signer
from log_shipper.endpoint import Answer, Endpoint
from log_shipper.errors import BatchRefused, DeliveryError

log = logging.getLogger(__name__)

_API = "Logs_20140328."
_CREDENTIALS = {
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
_REFUSALS = {"InvalidParameterException", "SerializationException", "ValidationException"}
_MAX_SKEW_S = 240  # AWS refuses signatures made more than five minutes away


class Event(msgspec.Struct, frozen=True, gc=False):
    timestamp: int
    message: str


class _Put(msgspec.Struct, frozen=True):
    logGroupName: str  # noqa: N815
    logStreamName: str  # noqa: N815
    logEvents: list[Event]  # noqa: N815


class Rejected(msgspec.Struct, frozen=True):
    """Events that CloudWatch took out of a batch it accepted: there is no use in sending them again."""

    too_old: int = 0
    too_new: int = 0


class CloudWatch:
    """A client for many threads, each with a connection of its own."""

    def __init__(self, region: str, retention_days: int) -> None:
        self._signer = Signer(region)
        self._endpoint = Endpoint(endpoint_url(region), self._signer)
        self._retention_days = retention_days
        self._encoder = msgspec.json.Encoder()

    def put(self, group: str, stream: str, batch: Batch) -> Rejected:
        """Deliver a batch. Raises DeliveryError: nothing or (on a lost answer) all of it may have arrived."""
        times, texts = batch.chronological()
        body = self._encoder.encode(_Put(group, stream, list(map(Event, times, texts))))
        answer = self._endpoint.call(f"{_API}PutLogEvents", body)
        if answer.error == "ResourceNotFoundException":
            self._make(group, stream)
            answer = self._endpoint.call(f"{_API}PutLogEvents", body)
        self._check(answer, "PutLogEvents", f"{group} {stream}")
        return _rejected(answer.body.get("rejectedLogEventsInfo") or {}, len(times))

    def _make(self, group: str, stream: str) -> None:
        names = {"logGroupName": group, "logStreamName": stream}
        answer = self._call("CreateLogStream", names)
        if answer.error == "ResourceNotFoundException":
            made = self._call("CreateLogGroup", {"logGroupName": group})
            self._check(made, "CreateLogGroup", group, "ResourceAlreadyExistsException")
            if self._retention_days and not made.error:
                retention = {"logGroupName": group, "retentionInDays": self._retention_days}
                self._check(self._call("PutRetentionPolicy", retention), "PutRetentionPolicy", group)
            log.info("log group made %s", kv(group=group, retention_days=self._retention_days or "forever"))
            answer = self._call("CreateLogStream", names)
        self._check(answer, "CreateLogStream", f"{group} {stream}", "ResourceAlreadyExistsException")

    def _call(self, operation: str, parameters: dict[str, Any]) -> Answer:
        return self._endpoint.call(f"{_API}{operation}", msgspec.json.encode(parameters))

    def _check(self, answer: Answer, operation: str, resource: str, expected: str = "") -> None:
        if not answer.error or answer.error == expected:
            return
        message = str(answer.body.get("message") or answer.body.get("Message") or "no reason given")
        text = f"logs:{operation} on {resource}: {answer.error}: {message}"
        if answer.error in _CREDENTIALS:
            self._signer.forget()
            raise DeliveryError(text + _skew(answer.date))
        if answer.error == "AccessDeniedException":
            self._signer.forget()  # a role that has just been allowed more needs no new process
            raise DeliveryError(f"{text} (the device's token exchange role must allow logs:{operation} on {resource})")
        if answer.error == "ResourceNotFoundException":
            raise DeliveryError(f"{text} (the group or stream is missing and could not be made)")
        if answer.error in _REFUSALS or answer.status == 413:
            raise BatchRefused(text)
        raise DeliveryError(text)


def endpoint_url(region: str) -> str:
    """Where CloudWatch Logs is: as the environment says, in the order boto3 asks it, or the region's own."""
    for name in ("AWS_ENDPOINT_URL_CLOUDWATCH_LOGS", "AWS_ENDPOINT_URL_LOGS", "AWS_ENDPOINT_URL"):
        if url := os.environ.get(name, "").rstrip("/"):
            if not url.startswith(("http://", "https://")):
                raise ConfigError(name, f"expected an http:// or https:// URL, found {redact.url(url)}")
            return url
    if not region:
        raise ConfigError("region", "neither set here nor as AWS_REGION")
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return f"https://logs.{region}.{domain}"


def _rejected(info: dict[str, int], count: int) -> Rejected:
    """`tooOld` and `expired` count from the start and are exclusive, `tooNew` is the first of the rest."""
    too_old = max(info.get("tooOldLogEventEndIndex", 0), info.get("expiredLogEventEndIndex", 0))
    return Rejected(too_old, count - info.get("tooNewLogEventStartIndex", count))


def _skew(date: str) -> str:
    """A hint if the device's clock is too far from the server's `Date`."""
    try:
        skew = time.time() - parsedate_to_datetime(date).timestamp()
    except ValueError:
        return ""
    return f" (the device's clock is {skew:+.0f} s off)" if abs(skew) > _MAX_SKEW_S else ""
