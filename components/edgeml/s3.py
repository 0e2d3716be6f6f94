"""Uploads that survive outages: objects wait in the durable queue until S3 has them.

Credentials come the SDK's usual way (on a device from the token exchange service); AWS_ENDPOINT_URL is honoured.
"""

import logging
import threading
from typing import Any

from edgeml.component import Context
from edgeml.errors import IpcError, Undeliverable
from edgeml.log import kv
from edgeml.spool import Drainer, Item, Spool

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5, 20
CLOSE_TIMEOUT_S = 1.0


class UploadError(IpcError):
    """S3 did not take an object this time."""


class Client:
    """A boto3 S3 client, made with the first use. Thread-safe; one attempt a call, since drainers do the retrying."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._client: Any = None

    def get(self) -> Any:
        with self._lock:
            if self._client is None:
                import boto3
                from botocore.config import Config

                config = Config(
                    connect_timeout=CONNECT_TIMEOUT_S,
                    read_timeout=READ_TIMEOUT_S,
                    retries={"total_max_attempts": 1},
                )
                self._client = boto3.client("s3", config=config)
            return self._client


class Uploader:
    """Puts objects into S3 in the order given. Thread-safe; boto3 is loaded with the first upload."""

    def __init__(self, context: Context, *, max_bytes: int, name: str = "s3") -> None:
        self._spool = Spool(context.work / f"{name}.spool", max_bytes=max_bytes)
        self._s3 = Client()
        self._health = context.health
        self._drainer = Drainer(self._spool, self._send, transient=(UploadError,))
        self._health.gauge(f"{name}.waiting", lambda: float(self._spool.depth))
        self._health.gauge(f"{name}.waiting_bytes", lambda: float(self._spool.bytes))
        self._health.gauge(f"{name}.dropped", lambda: float(self._spool.dropped))

    def put(self, bucket: str, key: str, data: bytes, content_type: str) -> None:
        """Queue an object; once this returns it survives a restart. Raises SpoolError."""
        self._spool.put(f"{bucket}/{key}", data, headers={"content_type": content_type})

    def configure(self, *, max_bytes: int) -> None:
        self._spool.max_bytes = max_bytes

    def close(self) -> None:
        """Finish the upload in hand; what is left goes out after the next start."""
        self._drainer.stop(flush_timeout=CLOSE_TIMEOUT_S)
        self._spool.close()

    def _send(self, item: Item) -> None:
        from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

        bucket, key = item.topic.split("/", 1)
        try:
            self._s3.get().put_object(
                Bucket=bucket, Key=key, Body=item.payload, ContentType=item.headers.get("content_type", "")
            )
        except ParamValidationError as error:
            raise Undeliverable(f"s3://{bucket}/{key}: {error}") from error
        except (BotoCoreError, ClientError) as error:
            if isinstance(error, ClientError) and error.response["Error"]["Code"] == "NoSuchBucket":
                # A corrected configuration does not reach what is queued: it must not block what comes after it.
                raise Undeliverable(f"s3://{bucket}/{key}: there is no such bucket") from error
            self._health.error(f"s3://{bucket}/{key}: {error}")
            raise UploadError(f"s3://{bucket}/{key}: {error}") from error
        self._health.count("s3.uploaded")
        log.debug("uploaded %s", kv(bucket=bucket, key=key, bytes=len(item.payload)))
