"""Edge Impulse Studio over HTTP: where it is, and asking it with an API key.

EI_HOST names another Studio, as Edge Impulse's own tools read it: a domain (`acme.edgeimpulse.com`), or an IP address
or `localhost`, which mean plain HTTP on ports 4800 (API), 4802 (remote management) and 4810 (ingestion). A URL with a
scheme serves all three from that one address.
"""

import contextlib
import ipaddress
import json
import os
import tempfile
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeml import http, json_limits, redact
from edgeml.errors import HttpError, JsonError, StudioError
from edgeml.files import sync_folder

DEFAULT_HOST = "edgeimpulse.com"
TIMEOUT_S = 20.0  # for a whole question and its answer
DOWNLOAD_TIMEOUT_S = 3600.0
REDIRECTS = 3  # on the same host only: the API key goes nowhere else
OK = 200
SHOWN_BYTES = 200
MIN_KEY = 8  # characters: what is shorter is a part of many words, and no key
MAX_ANSWER_BYTES = 16 << 20


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
        try:
            return int(projects[0]["id"])
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise StudioError(f"{redact.url(self.base)}: projects that are not understood: {error!r}") from error

    def download(self, path: str, target: Path, *, max_bytes: int, **query: str) -> None:
        """Save the answer's bytes as `target`, whole or not at all, mode 0700."""
        limits = http.Limits(total_s=DOWNLOAD_TIMEOUT_S, answer_s=DOWNLOAD_TIMEOUT_S, max_bytes=max_bytes)
        descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".part")
        try:
            with os.fdopen(descriptor, "wb") as file, self._opened("GET", path, None, query, limits) as answer:
                while chunk := answer.read1():
                    file.write(chunk)
                os.fchmod(file.fileno(), 0o700)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(target)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        sync_folder(target.parent)

    def _json(self, method: str, path: str, body: dict[str, Any] | None, query: dict[str, str]) -> dict[str, Any]:
        limits = http.Limits(total_s=self.timeout_s, max_bytes=MAX_ANSWER_BYTES)
        with self._opened(method, path, body, query, limits) as answer:
            text = answer.read()
        try:
            parsed = json_limits.loads(text, "the answer", max_bytes=MAX_ANSWER_BYTES)
        except JsonError as error:
            shown = without(self.api_key, f"{error}: {text[:200]!r}")
            raise StudioError(f"{method} {path}: no JSON that is understood: {shown}") from error
        if not isinstance(parsed, dict) or not parsed.get("success"):
            reason = parsed.get("error") if isinstance(parsed, dict) else None
            shown = without(self.api_key, str(reason or "Studio reports no success")[:500])
            raise StudioError(f"{method} {path}: {shown}")
        return parsed

    @contextlib.contextmanager
    def _opened(
        self, method: str, path: str, body: dict[str, Any] | None, query: dict[str, str], limits: http.Limits
    ) -> Iterator[http.Stream]:
        url = f"{self.base}/v1/api/{path}" + (f"?{urllib.parse.urlencode(query)}" if query else "")
        headers = {"x-api-key": self.api_key}
        if body is not None:
            headers["content-type"] = "application/json"
        encoded = None if body is None else json.dumps(body).encode()
        try:
            with http.opened(method, url, limits, headers=headers, body=encoded, redirects=REDIRECTS) as answer:
                if answer.status != OK:
                    said = without(self.api_key, repr(answer.read1(SHOWN_BYTES)[:SHOWN_BYTES]))
                    raise StudioError(f"{method} {path}: HTTP {answer.status} {said}")
                yield answer
        except HttpError as error:
            raise StudioError(f"{method} {path}: {without(self.api_key, str(error))}") from error


def without(key: str, text: str) -> str:
    """`text` of a server, which may repeat the API key that it was sent."""
    return text.replace(key, redact.HIDDEN) if len(key) >= MIN_KEY else text
