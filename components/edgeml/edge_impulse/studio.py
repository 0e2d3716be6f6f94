"""Edge Impulse Studio over HTTP: where it is, and asking it with an API key.

EI_HOST names another Studio, as Edge Impulse's own tools read it: a domain (`acme.edgeimpulse.com`), or an IP address
or `localhost`, which mean plain HTTP on ports 4800 (API), 4802 (remote management) and 4810 (ingestion). A URL with a
scheme serves all three from that one address.
"""

import contextlib
import http.client
import ipaddress
import json
import os
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeml import redact
from edgeml.errors import EdgemlError
from edgeml.files import sync_folder

DEFAULT_HOST = "edgeimpulse.com"
TIMEOUT_S = 20.0
MAX_ANSWER_BYTES = 16 << 20
_CHUNK_BYTES = 1 << 20


class StudioError(EdgemlError):
    """Studio cannot be reached, or does not do what it was asked."""


@dataclass(frozen=True)
class Endpoints:
    """Base URLs, without a slash at the end."""

    api: str
    remote_management: str
    ingestion: str


def endpoints(host: str = "") -> Endpoints:
    """Where Studio is: `host`, else EI_HOST, else the public one."""
    host = host or os.environ.get("EI_HOST", "") or DEFAULT_HOST
    if "://" in host:
        base = host.rstrip("/")
        return Endpoints(base, base.replace("http", "ws", 1), base)
    if _is_address(host):
        return Endpoints(f"http://{host}:4800", f"ws://{host}:4802", f"http://{host}:4810")
    return Endpoints(f"https://studio.{host}", f"wss://remote-mgmt.{host}", f"https://ingestion.{host}")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True


@dataclass(frozen=True)
class Studio:
    """Studio's REST API under `<api>/v1/api`, for the project that `api_key` belongs to. Raises StudioError."""

    api_key: str = field(repr=False)
    base: str = field(default_factory=lambda: endpoints().api)
    timeout_s: float = TIMEOUT_S

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """The JSON answer to `GET /v1/api/<path>`."""
        return self._json("GET", path, None, query)

    def post(self, path: str, body: dict[str, Any], **query: str) -> dict[str, Any]:
        return self._json("POST", path, body, query)

    def project(self) -> int:
        """Id of the project of this API key."""
        projects = self.get("projects").get("projects") or []
        if not projects:
            raise StudioError(f"{redact.url(self.base)}: this API key belongs to no project")
        return int(projects[0]["id"])

    def download(self, path: str, target: Path, *, max_bytes: int, **query: str) -> None:
        """Save the answer's bytes as `target`, whole or not at all, mode 0700."""
        with self._opened("GET", path, None, query) as answer:
            descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".part")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    _copy(answer, file, max_bytes, path)
                    os.fchmod(file.fileno(), 0o700)
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).replace(target)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        sync_folder(target.parent)

    def _json(self, method: str, path: str, body: dict[str, Any] | None, query: dict[str, str]) -> dict[str, Any]:
        with self._opened(method, path, body, query) as answer:
            text = answer.read(MAX_ANSWER_BYTES)
        try:
            parsed = json.loads(text)
        except ValueError as error:
            raise StudioError(f"{method} {path}: the answer is not JSON: {text[:200]!r}") from error
        if not isinstance(parsed, dict) or not parsed.get("success"):
            reason = parsed.get("error") if isinstance(parsed, dict) else None
            raise StudioError(f"{method} {path}: {reason or 'Studio reports no success'}")
        return parsed

    @contextlib.contextmanager
    def _opened(
        self, method: str, path: str, body: dict[str, Any] | None, query: dict[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        url = f"{self.base}/v1/api/{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        request = urllib.request.Request(url, method=method, headers={"x-api-key": self.api_key})  # noqa: S310
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("content-type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=self.timeout_s) as answer:  # noqa: S310
                yield answer
        except urllib.error.HTTPError as error:
            with error:
                raise StudioError(f"{method} {path}: HTTP {error.code} {error.read(200)!r}") from error
        except (OSError, http.client.HTTPException) as error:
            raise StudioError(f"{method} {redact.url(url)}: {redact.text(str(error), url)}") from error


def _copy(answer: http.client.HTTPResponse, file: Any, max_bytes: int, path: str) -> None:
    left = max_bytes
    while chunk := answer.read(_CHUNK_BYTES):
        left -= len(chunk)
        if left < 0:
            raise StudioError(f"GET {path}: more than {max_bytes} bytes")
        file.write(chunk)
    if answer.length:
        raise StudioError(f"GET {path}: cut short, {answer.length} bytes are missing")
