"""HTTP requests to servers that are not trusted: a total deadline, a limit in bytes, no redirects to other hosts.

A server that sends a byte now and then, endless headers, `100 Continue` without end or an endless body gets no further
than `Limits` say. The environment's proxies are used where asked for. Everything raised is an HttpError.
"""

import contextlib
import http.client
import math
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

from edgeml import redact
from edgeml._http_connection import MAX_HEAD_BYTES, Connection
from edgeml.errors import HttpError, HttpRedirectError, HttpTimeoutError, HttpUrlError

MAX_URL = 1 << 16  # characters
CHUNK = 256 << 10
_REDIRECTS = (301, 302, 303, 307, 308)
_HARMLESS = ("accept", "range", "user-agent")  # headers that may go to another host


@dataclass(frozen=True)
class Limits:
    """`total_s` bounds the whole exchange, `connect_s` its beginning, `answer_s` what follows, `stall_s` each wait."""

    total_s: float
    connect_s: float = 10.0
    stall_s: float = 60.0
    max_bytes: int = 8 << 20  # of a body
    answer_s: float = math.inf


@dataclass(frozen=True)
class Answer:
    """A whole answer. `url` is the one that answered, after redirects."""

    status: int
    reason: str
    headers: http.client.HTTPMessage
    body: bytes
    url: str


def check_url(url: str, schemes: tuple[str, ...] = ("https", "http")) -> SplitResult:
    """The parts of a URL that can be asked. Raises HttpUrlError saying what is wrong, without its secrets."""
    if len(url) > MAX_URL:
        raise HttpUrlError(f"a URL of {len(url)} characters, {MAX_URL} are allowed")
    if wrong := next((c for c in url if not "!" <= c <= "~"), None):
        raise HttpUrlError(f"{shown(url)}: a URL has no {wrong!r}, write it as %XX")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise HttpUrlError(f"{shown(url)}: its host or port cannot be read") from error  # the words quote a password
    if parts.scheme not in schemes or not parts.hostname:
        raise HttpUrlError(f"{shown(url)}: expected {' or '.join(schemes)}://<host>")
    return parts


def shown(url: str) -> str:
    """A URL for logs: no user, no password, no query."""
    return redact.url(url)


class Client:
    """Asks servers; keeps up to `idle` connections open for the next question. Thread-safe."""

    def __init__(self, *, idle: int = 0, proxies: bool = True, context: ssl.SSLContext | None = None) -> None:
        self._idle, self._proxies, self._context = idle, proxies, context
        self._lock = threading.Lock()
        self._kept: list[tuple[tuple[str, str, int], Connection]] = []

    def request(self, method: str, url: str, limits: Limits, **options: Any) -> Answer:
        """The whole answer, whatever its status. Options as `opened` has them. Raises HttpError."""
        with self.opened(method, url, limits, **options) as stream:
            return Answer(stream.status, stream.reason, stream.headers, stream.read(), stream.url)

    @contextlib.contextmanager
    def opened(
        self,
        method: str,
        url: str,
        limits: Limits,
        *,
        headers: Mapping[str, str] = MappingProxyType({}),
        body: bytes | None = None,
        redirects: int | None = 0,
        cross_host: bool = False,
    ) -> Iterator["Stream"]:
        """The answer, its body still to be read. Raises HttpError.

        Up to `redirects` redirects of a GET are followed, on the same host only unless `cross_host`, never from https
        to http; headers that may hold secrets do not go to another host. None hands a redirect out as the answer.
        """
        deadline = time.monotonic() + limits.total_s
        left = redirects or 0
        while True:
            stream = self._asked(method, url, limits, deadline, dict(headers), body)
            try:
                if redirects is None or stream.status not in _REDIRECTS:
                    yield stream
                    return
            finally:
                self._done(stream)
            if left == 0 or method not in ("GET", "HEAD"):
                raise HttpRedirectError(f"{shown(url)}: HTTP {stream.status}, no redirect is followed here")
            target = _target(url, stream.headers.get("Location") or "")
            headers, url, left = _redirected(url, target, headers, cross_host), target, left - 1

    def close(self) -> None:
        with self._lock:
            kept, self._kept = self._kept, []
        for _, connection in kept:
            connection.end()

    def __del__(self) -> None:
        self.close()

    def _asked(
        self, method: str, url: str, limits: Limits, deadline: float, headers: dict[str, str], body: bytes | None
    ) -> "Stream":
        parts = check_url(url)
        for name, value in headers.items():
            if not value.isprintable() or not value.isascii():  # http.client would quote it, and it may be a secret
                raise HttpError(f"{shown(url)}: header {name} holds characters that cannot be sent")
        place = (parts.scheme, parts.hostname or "", _port(parts))
        connection = self._taken(place)
        if connection is not None:
            try:
                return _exchanged(connection, place, method, url, limits, deadline, headers, body)
            except _Stale:
                pass  # it was closed while it rested: the server has not seen this request
        if place[0] == "https" and self._context is None:
            self._context = ssl.create_default_context()  # reads all certificates of the system: once
        connection = Connection(place, self._proxy(place), self._context)
        return _exchanged(connection, place, method, url, limits, deadline, headers, body)

    def _proxy(self, place: tuple[str, str, int]) -> str | None:
        scheme, host, port = place
        if not self._proxies or urllib.request.proxy_bypass(f"{host}:{port}") or urllib.request.proxy_bypass(host):
            return None
        return urllib.request.getproxies().get(scheme)

    def _taken(self, place: tuple[str, str, int]) -> "Connection | None":
        with self._lock:
            index = next((i for i, (kept, _) in enumerate(self._kept) if kept == place), None)
            if index is None:
                return None
            connection = self._kept.pop(index)[1]
        if connection.rests():
            return connection
        connection.end()
        return None

    def _done(self, stream: "Stream") -> None:
        with self._lock:
            if stream.reusable and len(self._kept) < self._idle:
                self._kept.append((stream.place, stream.connection))
                return
        stream.connection.end()


class Stream:
    """An answer whose body is read piece by piece."""

    def __init__(
        self, response: http.client.HTTPResponse, connection: "Connection", place: tuple[str, str, int], url: str,
        limits: Limits,
    ) -> None:  # fmt: skip
        self.status, self.reason, self.headers, self.url = response.status, response.reason, response.headers, url
        self.connection, self.place, self._response = connection, place, response
        self._left, self._limits = limits.max_bytes, limits
        if response.length is not None and response.length > limits.max_bytes:
            raise HttpError(f"{shown(url)}: {response.length} bytes, {limits.max_bytes} are allowed")

    @property
    def reusable(self) -> bool:
        return self._response.isclosed() and not self._response.will_close

    def read1(self, most: int = CHUNK) -> bytes:
        """What has arrived, waiting for at least one byte; nothing at the end. Raises HttpError."""
        with _translated(self.url):
            piece = self._response.read1(max(1, min(most, self._left + 1)))
            if self._response.length == 0:
                self._response.close()  # some Pythons notice the end of a body only with the next answer
        self._left -= len(piece)
        if self._left < 0:
            raise HttpError(f"{shown(self.url)}: more than {self._limits.max_bytes} bytes")
        if not piece and self._response.length:
            raise HttpError(f"{shown(self.url)}: cut short, {self._response.length} bytes are missing")
        return piece

    def read(self) -> bytes:
        """All that is left. Raises HttpError."""
        return b"".join(iter(self.read1, b""))


def request(method: str, url: str, limits: Limits, **options: Any) -> Answer:
    """One request on a connection of its own, as Client.request. Raises HttpError."""
    return Client().request(method, url, limits, **options)


def opened(method: str, url: str, limits: Limits, **options: Any) -> contextlib.AbstractContextManager[Stream]:
    """One request on a connection of its own, as Client.opened. Raises HttpError."""
    return Client().opened(method, url, limits, **options)


class _Stale(Exception):  # noqa: N818  (an event, never seen outside)
    """A kept connection turned out to be closed."""


def _exchanged(
    connection: Connection, place: tuple[str, str, int], method: str, url: str, limits: Limits, deadline: float,
    headers: dict[str, str], body: bytes | None,
) -> Stream:  # fmt: skip
    parts = urlsplit(url)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    kept = connection.timed is not None
    if connection.absolute:
        target = f"{place[0]}://{parts.netloc.rpartition('@')[2]}{target}"
    try:
        with _translated(url):
            if connection.timed is None:
                connection.open(min(deadline, time.monotonic() + limits.connect_s), limits.stall_s)
            assert connection.timed is not None  # noqa: S101  (open made it)
            deadline = min(deadline, time.monotonic() + limits.answer_s)
            connection.timed.bound(deadline, limits.stall_s, MAX_HEAD_BYTES)
            host = {"Host": parts.netloc.rpartition("@")[2]}
            try:
                connection.request(method, target, body=body, headers={**host, **connection.proxy_headers, **headers})
                response = connection.getresponse()
            except (BrokenPipeError, ConnectionResetError, http.client.RemoteDisconnected) as error:
                if kept and method != "POST":
                    raise _Stale from error
                raise
            connection.timed.bound(deadline, limits.stall_s, 2 * limits.max_bytes + MAX_HEAD_BYTES)
        return Stream(response, connection, place, url, limits)
    except BaseException:
        connection.end()
        raise


@contextlib.contextmanager
def _translated(url: str) -> Iterator[None]:
    """What sockets, TLS and http.client raise, as ours. ValueError and UnicodeError come of odd headers."""
    try:
        yield
    except TimeoutError as error:
        raise HttpTimeoutError(f"{shown(url)}: timed out") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        told = "".join(c if c.isprintable() else " " for c in str(error)[:200]).strip()  # it quotes the server
        raise HttpError(f"{shown(url)}: {told or type(error).__name__}") from error


def _target(source: str, location: str) -> str:
    """Where a redirect leads. Raises HttpRedirectError."""
    try:
        return urljoin(source, location)
    except ValueError as error:
        raise HttpRedirectError(f"{shown(source)}: redirects to what is no URL") from error


def _redirected(source: str, target: str, headers: Mapping[str, str], cross_host: bool) -> Mapping[str, str]:
    """The headers that go to `target`. Raises HttpRedirectError."""
    before, after = urlsplit(source), check_url(target)
    if before.scheme == "https" and after.scheme != "https":
        raise HttpRedirectError(f"{shown(source)}: redirects to {shown(target)}, which is not encrypted")
    same = before.hostname == after.hostname and (before.scheme != after.scheme or _port(before) == _port(after))
    if not same and not cross_host:
        raise HttpRedirectError(f"{shown(source)}: redirects to another host, {after.hostname}")
    return headers if same else {key: value for key, value in headers.items() if key.lower() in _HARMLESS}


def _port(parts: SplitResult) -> int:
    return parts.port or (443 if parts.scheme == "https" else 80)
