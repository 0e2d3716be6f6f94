"""JSON requests to one endpoint over kept-alive connections, one for each thread."""

import contextlib
import http.client
import os
import socket
import ssl
import threading
import time
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from edgeml import redact
from log_shipper.credentials import Signer
from log_shipper.errors import DeliveryError

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 5.0, 20.0
IDLE_S = 4.0  # servers drop idle connections after about five seconds, and a request sent then may be lost
MAX_ANSWER = 1 << 20


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
        self._parts = urlsplit(url)
        self._signer = signer
        self._local = threading.local()
        self._tls: ssl.SSLContext | None = None

    def call(self, target: str, body: bytes) -> Answer:
        """Raises DeliveryError if there is no answer."""
        headers = {
            "Content-Type": "application/x-amz-json-1.1",
            "X-Amz-Target": target,
            "Host": self._parts.netloc,
        }
        signed = self._signer.sign(f"{self.url}/", headers, body)
        connection = self._connection()
        try:
            if connection.sock is None:
                connection.connect()
                _socket(connection).settimeout(READ_TIMEOUT_S)
            connection.request("POST", f"{self._parts.path}/", body=body, headers=signed)
            response = connection.getresponse()
            data = response.read(MAX_ANSWER)
        except (OSError, http.client.HTTPException) as error:
            self._disconnect()
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise DeliveryError(f"{redact.url(self.url)}: {redact.text(reason, self.url)}") from error
        if not response.isclosed():
            self._disconnect()
        self._local.used = time.monotonic()
        return _answer(response, data)

    def _disconnect(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._new()
        elif time.monotonic() - self._local.used > IDLE_S:
            connection.close()
        return connection

    def _new(self) -> http.client.HTTPConnection:
        from urllib.request import getproxies, proxy_bypass

        self._local.used = time.monotonic()
        host, port, secure = self._parts.hostname or "", self._parts.port, self._parts.scheme == "https"
        proxy = None if proxy_bypass(host) else getproxies().get(self._parts.scheme)
        via = urlsplit(proxy) if proxy else None
        near, near_port = (via.hostname or "", via.port) if via else (host, port)
        connection: http.client.HTTPConnection
        if secure:
            if self._tls is None:
                self._tls = _tls()
            connection = http.client.HTTPSConnection(near, near_port, timeout=CONNECT_TIMEOUT_S, context=self._tls)
        else:
            connection = http.client.HTTPConnection(near, near_port, timeout=CONNECT_TIMEOUT_S)
        if via:
            connection.set_tunnel(host, port or (443 if secure else 80), _proxy_headers(via.username, via.password))
        return connection


def _socket(connection: http.client.HTTPConnection) -> socket.socket:
    """The socket of a connected connection; the standard library's types know it only as None."""
    found: socket.socket = connection.sock
    return found


def _proxy_headers(user: str | None, password: str | None) -> dict[str, str]:
    if user is None:
        return {}
    from base64 import b64encode

    secret = b64encode(f"{user}:{password or ''}".encode()).decode()
    return {"Proxy-Authorization": f"Basic {secret}"}


def _tls() -> ssl.SSLContext:
    bundle = os.environ.get("AWS_CA_BUNDLE")
    defaults = ssl.get_default_verify_paths()
    if not bundle and not (defaults.cafile or defaults.capath):
        import botocore.httpsession  # brings a list of its own, for systems that have none

        bundle = str(botocore.httpsession.DEFAULT_CA_BUNDLE)
    return ssl.create_default_context(cafile=bundle or None)


def _answer(response: http.client.HTTPResponse, data: bytes) -> Answer:
    body: dict[str, Any] = {}
    with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):  # a proxy's or load balancer's HTML
        body = msgspec.json.decode(data, type=dict[str, Any]) if data else {}
    error = ""
    if response.status >= 300:
        code = str(body.get("__type") or response.getheader("x-amzn-ErrorType") or f"HTTP {response.status}")
        error = code.rpartition("#")[2].partition(":")[0]
    return Answer(response.status, error, body, response.getheader("Date") or "")
