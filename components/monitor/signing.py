"""Signing in and out over HTTP: a form and a cookie for browsers, a header for tools; whose a request is."""

import base64
import binascii
from pathlib import Path
from urllib.parse import parse_qsl

import anyio
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from monitor.access import MAX_PASSWORD, Access
from monitor.attempts import EACH_S
from monitor.door import Visitor

COOKIE = "edgeml-monitor"
BROWSER = "edgeml-browser"  # lets nobody in; it tells a browser that has signed in from others at its address
HOST_ONLY = "__Host-"  # browsers take such a cookie from this host alone, over TLS
BROWSER_S = 90 * 86400
MAX_FORM_BYTES = 4 * MAX_PASSWORD  # each byte may come as %XX
OWN_SITE = ("same-origin", "none")
HASHING = anyio.CapacityLimiter(1)  # who comes in crowds waits: each hash takes 16 MB
BARE = (
    '<!doctype html><html lang="en"><title>Sign in</title><form method="post" action="/sign-in">'
    '<label>Password <input name="password" type="password" required autofocus></label><button>Sign in</button></form>'
)


def signed_in(request: HTTPConnection, access: Access | None) -> bool:
    """Whether the request has a session that lasts; each one has where no password is asked for."""
    if access is None:
        return True
    return access.valid(request.cookies.get(_cookie(request), "")) or access.valid(_authorization(request))


class Doorman:
    """Who is at the door: tells the connection, and lets tools in that send the password with their requests."""

    def __init__(self, access: Access | None) -> None:
        self._access = access

    async def looks(self, scope: Scope) -> bool:
        """False where a request has a password with it that may not be tried now."""
        request = HTTPConnection(scope)
        if self._access is not None and not signed_in(request, self._access):
            password = _sent_password(_authorization(request))
            if password and await attempt(request, self._access, password, _authorization(request)) is None:
                return False
        visitor = _visitor(request)
        if visitor is not None:
            visitor.signed_in = self._access is not None and signed_in(request, self._access)
        return True


async def attempt(request: HTTPConnection, access: Access, password: str, token: str = "") -> str | None:
    """A session's token (`token`, if one is given) for the right password, empty for a wrong one; None: not now."""
    visitor = _visitor(request)
    peer = access.browser(request.cookies.get(_cookie(request, BROWSER), ""))
    if not peer and visitor is not None:
        peer = await anyio.to_thread.run_sync(lambda: visitor.peer)
    if not access.attempts.begin(peer):
        return None
    right = False
    try:
        found = await anyio.to_thread.run_sync(access.sign_in, password, token, limiter=HASHING)
        right = bool(found)
    finally:
        access.attempts.end(peer, right=right)
    return found or ""


def routes(access: Access | None, form: Path | None) -> list[Route]:
    """`form` is the page with the form, a bare one where there is none."""

    async def ask(request: Request) -> Response:
        return FileResponse(form) if form is not None else HTMLResponse(BARE)

    async def sign_in(request: Request) -> Response:
        if access is None:
            return RedirectResponse("/", 303)
        password = await _password(request)
        if password is None:
            return PlainTextResponse("expected a form with the field password\n", 400)
        token = await attempt(request, access, password)
        if token is None:
            return PlainTextResponse("too many attempts\n", 429, {"Retry-After": str(int(EACH_S))})
        if not token:
            return PlainTextResponse("wrong password\n", 401)
        answer, secure = RedirectResponse("/", 303), _is_secure(request)
        answer.set_cookie(_cookie(request), token, httponly=True, samesite="strict", secure=secure)
        if not access.browser(request.cookies.get(_cookie(request, BROWSER), "")):
            name = _cookie(request, BROWSER)
            answer.set_cookie(name, access.remembered(), BROWSER_S, httponly=True, samesite="strict", secure=secure)
        return answer

    async def sign_out(request: Request) -> Response:
        if access is not None:
            await anyio.to_thread.run_sync(access.sign_out, request.cookies.get(_cookie(request), ""))
        answer = RedirectResponse("/sign-in", 303)
        answer.delete_cookie(_cookie(request), httponly=True, samesite="strict", secure=_is_secure(request))
        return answer

    return [
        Route("/sign-in", ask, methods=["GET"]),
        Route("/sign-in", sign_in, methods=["POST"]),
        Route("/sign-out", sign_out, methods=["POST"]),
    ]


def same_origin(request: HTTPConnection) -> bool:
    """Whether this page sent the request, or no browser, or a person who goes to the page from wherever he was.

    Browsers name the origin of what changes something and of WebSockets, and the site of all they ask for.
    """
    origins, headers = request.headers.getlist("origin"), request.headers
    scheme = "https" if _is_secure(request) else "http"
    if origins and origins != [f"{scheme}://{headers.get('host', '')}"]:
        return False
    sites = headers.getlist("sec-fetch-site")
    if not sites or (len(sites) == 1 and sites[0] in OWN_SITE):
        return True
    goes_there = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    return goes_there and request.scope.get("method") == "GET"


def _is_secure(request: HTTPConnection) -> bool:
    return request.scope.get("scheme") in ("https", "wss")


def _cookie(request: HTTPConnection, name: str = COOKIE) -> str:
    return HOST_ONLY + name if _is_secure(request) else name


def _visitor(request: HTTPConnection) -> Visitor | None:
    found = request.scope.get("state", {}).get("visitor")
    return found if isinstance(found, Visitor) else None


def _authorization(request: HTTPConnection) -> str:
    values = request.headers.getlist("authorization")
    return values[0] if len(values) == 1 else ""


def _sent_password(authorization: str) -> str:
    """The password in `Bearer <password>` or in `Basic` credentials of any name; empty if there is none."""
    kind, _, value = authorization.partition(" ")
    if kind.lower() == "bearer":
        return value[:MAX_FORM_BYTES]
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return ""


async def _password(request: Request) -> str | None:
    body = b""
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_FORM_BYTES:
                return None
    except ClientDisconnect:
        return None
    try:
        fields = parse_qsl(body.decode(), strict_parsing=True, max_num_fields=1, errors="strict")
    except ValueError:
        return None
    return fields[0][1] if len(fields) == 1 and fields[0][0] == "password" else None
