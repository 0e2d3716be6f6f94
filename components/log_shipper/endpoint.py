"""Signed JSON requests to one endpoint over kept-alive connections, one for each thread."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from log_shipper.errors import DeliveryError

if TYPE_CHECKING:  # http, ssl and what they bring are loaded with the first request
    import ssl

    from edgeml.http import Client
    from log_shipper.credentials import Signer

CONNECT_TIMEOUT_S, READ_TIMEOUT_S, TOTAL_TIMEOUT_S = 5.0, 20.0, 60.0
IDLE_S = 4.0  # servers drop idle connections after about five seconds, and a request sent then may be lost
MAX_ANSWER = 1 << 20
NO_ANSWER = "NoAnswerOfTheService"


class Answer(NamedTuple):
    """`error` is the exception's name as AWS has it, empty on success; `date` the server's clock."""

    status: int
    error: str
    body: dict[str, Any]
    date: str


class Endpoint:
    """Sends signed `X-Amz-Target` requests. Thread-safe."""

    def __init__(self, url: str, signer: Signer) -> None:
        self.url = url
        self._host = urlsplit(url).netloc
        self._signer = signer
        self._local = threading.local()
        self._lock = threading.Lock()
        self._tls: ssl.SSLContext | None = None

    def call(self, target: str, body: bytes) -> Answer:
        """Raises DeliveryError if there is no answer."""
        from edgeml.errors import HttpError
        from edgeml.http import Limits

        headers = {"Content-Type": "application/x-amz-json-1.1", "X-Amz-Target": target, "Host": self._host}
        signed = self._signer.sign(f"{self.url}/", headers, body)
        limits = Limits(TOTAL_TIMEOUT_S, CONNECT_TIMEOUT_S, READ_TIMEOUT_S, MAX_ANSWER)
        client = self._client()
        try:
            answer = client.request("POST", f"{self.url}/", limits, headers=signed, body=body, redirects=None)
        except HttpError as error:
            client.close()
            raise DeliveryError(str(error)) from error
        finally:
            self._local.used = time.monotonic()
        return _answer(answer.status, answer.headers, answer.body)

    def _client(self) -> Client:
        """This thread's connection, a new one where it has rested for too long."""
        client: Client | None = getattr(self._local, "client", None)
        if client is None:
            from edgeml.http import Client

            client = self._local.client = Client(idle=1, context=self._context())
        elif time.monotonic() - self._local.used > IDLE_S:
            client.close()
        return client

    def _context(self) -> ssl.SSLContext | None:
        if not self.url.startswith("https:"):
            return None
        with self._lock:
            self._tls = self._tls or _tls()
            return self._tls


def _tls() -> ssl.SSLContext:
    import ssl

    bundle = os.environ.get("AWS_CA_BUNDLE")
    defaults = ssl.get_default_verify_paths()
    try:
        if not bundle and not (defaults.cafile or defaults.capath):
            import botocore.httpsession  # brings a list of its own, for systems that have none

            bundle = str(botocore.httpsession.DEFAULT_CA_BUNDLE)
        return ssl.create_default_context(cafile=bundle or None)
    except OSError as error:
        raise DeliveryError(f"no certificates to trust in {bundle or defaults.cafile}: {error}") from error


def _answer(status: int, headers: Any, data: bytes) -> Answer:
    body: dict[str, Any] = {}
    error = ""
    try:
        body = msgspec.json.decode(data, type=dict[str, Any]) if data else {}
    except (ValueError, RecursionError):  # the HTML of a proxy, a load balancer, a hotel's login page
        error = NO_ANSWER
    if status >= 300:
        code = str(body.get("__type") or headers.get("x-amzn-ErrorType") or f"HTTP {status}")
        error = code.rpartition("#")[2].partition(":")[0]
    return Answer(status, error, body, headers.get("Date") or "")
