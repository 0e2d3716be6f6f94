"""Uploads that survive outages: objects wait in the durable queue until S3 has them.

Credentials come the SDK's usual way (on a device from the token exchange service); AWS_ENDPOINT_URL is honoured.
"""

import logging
from datetime import datetime, timezone
from typing import Any

from edgeml.clock import CLOCK, UNSYNCHRONISED, WAIT_S, Clock
from edgeml.component import Context
from edgeml.credentials import AwsClient, Credentials
from edgeml.drainer import Drainer, Held
from edgeml.errors import CloudError, EdgemlError, RefusedError
from edgeml.log import kv
from edgeml.spool import Item, Spool

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5, 20
CLOSE_TIMEOUT_S = 1.0
LOOK_AGAIN_S = 1.0  # whether the clock is right by now

# 4xx that say "not now", whatever the object is: time, throttling, a transfer cut off, another one in progress.
_NOT_NOW = {
    "BadDigest",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "OperationAborted",
    "RequestTimeTooSkewed",
    "RequestTimeout",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
# ... and those that say so of the credentials, which are then fetched anew.
_CREDENTIALS = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidToken",
    "RequestExpired",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
    "UnrecognizedClientException",
}


class Client:
    """S3. Thread-safe; one attempt a call, since drainers do the retrying."""

    def __init__(self, credentials: Credentials | None = None) -> None:
        self._credentials = credentials or Credentials()
        self._client = AwsClient(
            "s3",
            credentials=self._credentials,
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            retries={"total_max_attempts": 1},
        )

    def call(self, operation: str, what: str, **arguments: Any) -> Any:
        """The answer to an operation (`put_object`) on `what`.

        Raises RefusedError where S3 will never do it as it is, CloudError for an outage.
        """
        client = self._client.get()
        from botocore.exceptions import ClientError, ParamValidationError

        try:
            answer = getattr(client, operation)(**arguments)
        except (ParamValidationError, UnicodeError) as error:
            raise RefusedError(f"{what}: {error}") from error
        except ClientError as error:
            raise self._answered(error, what) from error
        except Exception as error:  # botocore, urllib3, parsers: no answer of S3
            raise CloudError(f"{what}: {error}") from error
        # To botocore anything with status 200 is a success; S3 gives the ETag of what it has stored, a portal a page.
        kind = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("content-type", "")
        if operation == "put_object" and "html" in kind.lower() and not answer.get("ETag"):
            raise CloudError(f"{what}: a page ({kind[:40]}) in place of S3's answer: is a proxy or a portal between?")
        return answer

    def _answered(self, error: Any, what: str) -> CloudError | RefusedError:
        """An answer that is an error, as ours; by code and status, for messages are in anybody's words."""
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        text = f"{what}: {error}"
        if code in _CREDENTIALS:
            self._credentials.forget()
        elif code not in _NOT_NOW and (status == 301 or (400 <= status < 500 and status not in (407, 408, 429))):
            return RefusedError(text)
        return CloudError(text)


def bucket_of(topic: str) -> str:
    """The lane of an object: `<bucket>/<key>` waits for, or is refused by, its bucket."""
    return topic.partition("/")[0]


class Uploader:
    """Puts objects into S3 in the order given, bucket by bucket. Thread-safe; boto3 is loaded with the first upload."""

    def __init__(
        self,
        context: Context,
        *,
        max_bytes: int,
        name: str = "s3",
        clock: Clock = CLOCK,
        clock_wait_s: float = WAIT_S,
    ) -> None:
        self._health, self._clock, self._clock_wait_s = context.health, clock, clock_wait_s
        self._spool = Spool(
            context.work / f"{name}.spool",
            max_bytes=max_bytes,
            clock=clock,
            lane=bucket_of,
            problems=context.health.problems,
            subject=name,
        )
        self._s3 = Client()
        self._drainer = Drainer(self._spool, self._send, transient=(CloudError,))
        shown = self._health.scope(name)
        self._spool.measured(shown)
        shown.gauge("waiting_bytes", lambda: float(self._spool.size_bytes))

    def put(self, bucket: str, key: str, data: bytes, content_type: str, *, at: float | None = None) -> None:
        """Queue an object; once this returns it survives a restart. Raises SpoolError.

        With `at`, Unix time, `key` may hold strftime's directives (`%Y/%m/%d`, `%%` for a percent sign): with a wrong
        clock the object waits until its true time is known.
        """
        headers = {"content_type": content_type}
        if at is not None and self._clock.believed():
            key = dated(key, at)
        elif at is not None:
            headers["at"] = repr(at)
        self._spool.put(f"{bucket}/{key}", data, headers=headers)

    def key(self, key: str, at: float) -> str:
        """What `put` makes of a key; empty while that is not known."""
        return dated(key, at) if self._clock.believed() else ""

    def configure(self, *, max_bytes: int, clock_wait_s: float = WAIT_S) -> None:
        """Take over a changed configuration. What was refused is tried once more: the reason may be gone."""
        self._spool.max_bytes, self._clock_wait_s = max_bytes, clock_wait_s
        self._drainer.again()

    def close(self) -> None:
        """Finish the upload in hand; what is left goes out after the next start."""
        self._drainer.stop(flush_timeout=CLOSE_TIMEOUT_S)
        self._spool.close()

    def _send(self, item: Item) -> None:
        bucket, _, key = item.topic.partition("/")
        more: dict[str, Any] = {}
        if "at" in item.headers and item.moment is not None:
            if (wait := self._clock.hold_s(self._clock_wait_s)) > 0:
                raise Held(min(wait, LOOK_AGAIN_S))
            key = dated(key, float(item.headers["at"]) + self._clock.shift_s(item.moment))
            if not self._clock.is_certain(item.moment):
                more["Metadata"] = {"clock": UNSYNCHRONISED}
        what, kind = f"s3://{bucket}/{key}", item.headers.get("content_type", "")
        try:
            self._s3.call("put_object", what, Bucket=bucket, Key=key, Body=item.payload, ContentType=kind, **more)
        except EdgemlError as error:
            self._health.error(error)
            raise
        self._health.count("s3.uploaded")
        log.debug("uploaded %s", kv(bucket=bucket, key=key, bytes=len(item.payload)))


def literal(text: str) -> str:
    """`text` for a key that holds strftime's directives elsewhere."""
    return text.replace("%", "%%")


def dated(key: str, at: float) -> str:
    """A key with strftime's directives, at Unix time `at`, in UTC."""
    return datetime.fromtimestamp(at, timezone.utc).strftime(key)
