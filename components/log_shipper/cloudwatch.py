"""CloudWatch Logs by its JSON API: PutLogEvents, and what makes the group and the stream when they are missing."""

import logging
import os
import re
import time
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec

from edgeml import redact
from edgeml.errors import ConfigError
from edgeml.log import kv
from edgeml.problems import Problems
from log_shipper.credentials import Signer
from log_shipper.endpoint import NO_ANSWER, Answer, Endpoint
from log_shipper.errors import BatchRefused, DeliveryError, DoubtedError

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
_DISLIKED = (400, 403, 406, 414, 415, 422, 431, 451)
_NAME_AT_FAULT = re.compile(r"'?log(?:Group|Stream)Name'?|log (?:group|stream) name", re.IGNORECASE)
_MAX_SKEW_S = 240  # AWS refuses signatures made more than five minutes away


class Event(msgspec.Struct, frozen=True, gc=False):
    timestamp: int
    message: str


class _Put(msgspec.Struct, frozen=True, omit_defaults=True):
    logGroupName: str  # noqa: N815
    logStreamName: str  # noqa: N815
    logEvents: list[Event]  # noqa: N815
    sequenceToken: str | None = None  # noqa: N815


class Rejected(msgspec.Struct, frozen=True):
    """Events that CloudWatch left out of a batch it took, for their time: the first `old`, and those from `new` on."""

    old: int
    new: int
    expired: int = 0  # of the old ones: older than the group keeps anything


class CloudWatch:
    """A client for many threads, each with a connection of its own."""

    def __init__(self, region: str, retention_days: int, problems: Problems) -> None:
        self._signer = Signer(region)
        self._endpoint = Endpoint(endpoint_url(region), self._signer)
        self._retention_days = retention_days
        self._problems = problems
        self._encoder = msgspec.json.Encoder()

    def put(self, group: str, stream: str, times: list[int], texts: list[str]) -> Rejected:
        """Deliver events, in the order of time. Raises DeliveryError: none arrived, or (on a lost answer) all."""
        answer = self._put(group, stream, times, texts)
        if answer.error == "ResourceNotFoundException":
            self._make(group, stream)
            answer = self._put(group, stream, times, texts)
        if answer.error == "InvalidSequenceTokenException":  # what AWS asked for until 2023, and others still do
            token = answer.body.get("expectedSequenceToken")
            answer = self._put(group, stream, times, texts, token if isinstance(token, str) else None)
        if answer.error == "DataAlreadyAcceptedException":
            return Rejected(0, len(times))
        self._check(answer, "PutLogEvents", f"{group} {stream}")
        return _rejected(answer.body.get("rejectedLogEventsInfo"), len(times))

    def _put(self, group: str, stream: str, times: list[int], texts: list[str], token: str | None = None) -> Answer:
        events = list(map(Event, times, texts))
        try:
            body = self._encoder.encode(_Put(group, stream, events, token))
        except UnicodeEncodeError:  # half a surrogate pair, which is no text
            events = [Event(event.timestamp, event.message.encode(errors="replace").decode()) for event in events]
            body = self._encoder.encode(_Put(group, stream, events, token))
        return self._endpoint.call(f"{_API}PutLogEvents", body)

    def _make(self, group: str, stream: str) -> None:
        names = {"logGroupName": group, "logStreamName": stream}
        answer = self._call("CreateLogStream", names)
        if answer.error == "ResourceNotFoundException":
            made = self._call("CreateLogGroup", {"logGroupName": group})
            self._check(made, "CreateLogGroup", group, "ResourceAlreadyExistsException")
            if self._retention_days and not made.error:
                self._set_retention(group)
            log.info("log group made %s", kv(group=group, retention_days=self._retention_days or "forever"))
            answer = self._call("CreateLogStream", names)
        self._check(answer, "CreateLogStream", f"{group} {stream}", "ResourceAlreadyExistsException")

    def _set_retention(self, group: str) -> None:
        """A group that keeps its lines for longer than wished is a problem, and no reason to send it none."""
        retention = {"logGroupName": group, "retentionInDays": self._retention_days}
        try:
            self._check(self._call("PutRetentionPolicy", retention), "PutRetentionPolicy", group)
        except DeliveryError as error:
            self._problems.found("refused", f"retention of {group}", f"set retentionDays by hand: {error}")

    def _call(self, operation: str, parameters: dict[str, Any]) -> Answer:
        return self._endpoint.call(f"{_API}{operation}", msgspec.json.encode(parameters))

    def _check(self, answer: Answer, operation: str, resource: str, expected: str = "") -> None:
        if not answer.error or answer.error == expected:
            return
        message = str(answer.body.get("message") or answer.body.get("Message") or "no reason given")
        text = f"logs:{operation} on {resource}: {answer.error}: {message[:500]}"
        if answer.error in _CREDENTIALS:
            self._signer.forget()
            skew = _skew(answer.date)
            raise DeliveryError(text + skew, "clock" if skew else "credentials")
        if answer.error.startswith("AccessDenied"):
            self._signer.forget()  # a role that has just been allowed more needs no new process
            hint = f"(the device's token exchange role must allow logs:{operation} on {resource})"
            raise DeliveryError(f"{text} {hint}", "credentials")
        if answer.error == "ResourceNotFoundException":
            raise DeliveryError(f"{text} (the group or stream is missing and could not be made)", "refused")
        if answer.error in _REFUSALS or answer.status == 413:
            if operation != "PutLogEvents" or _NAME_AT_FAULT.search(message[:2000]):
                raise DeliveryError(f"{text} (logGroup or logStream gives a name that is none)", "refused")
            raise BatchRefused(text)
        if answer.error == NO_ANSWER:
            raise DeliveryError(f"{text}: what answered is not CloudWatch Logs; is there a proxy or a login page?")
        untyped = answer.error == f"HTTP {answer.status}"  # not CloudWatch Logs itself, which gives its reasons names
        if operation == "PutLogEvents" and untyped and answer.status in _DISLIKED:
            raise DoubtedError(text)
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


def _rejected(info: Any, count: int) -> Rejected:
    """`tooOld` and `expired` count from the start and are exclusive, `tooNew` is the first of the rest."""

    def index(name: str, otherwise: int) -> int:
        value = info.get(name) if isinstance(info, dict) else None
        return value if isinstance(value, int) and 0 <= value <= count else otherwise

    expired = index("expiredLogEventEndIndex", 0)
    old = max(index("tooOldLogEventEndIndex", 0), expired)
    return Rejected(old, max(old, index("tooNewLogEventStartIndex", count)), expired)


def _skew(date: str) -> str:
    """A hint if the device's clock is too far from the server's `Date`."""
    try:
        skew = time.time() - parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return ""
    return f" (the device's clock is {skew:+.0f} s off)" if abs(skew) > _MAX_SKEW_S else ""
