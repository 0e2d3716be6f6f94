"""Signing in and out over HTTP: a form, a cookie, and the check of a request's session."""

from pathlib import Path
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from monitor.access import ATTEMPT_S, MAX_PASSWORD, Access

COOKIE = "edgeml-monitor"
MAX_FORM_BYTES = 4 * MAX_PASSWORD  # each byte may come as %XX
BARE = (
    '<!doctype html><html lang="en"><title>Sign in</title><form method="post" action="/sign-in">'
    '<label>Password <input name="password" type="password" required autofocus></label><button>Sign in</button></form>'
)


def signed_in(request: HTTPConnection, access: Access | None) -> bool:
    """Whether the request has a session; each one has where no password is asked for."""
    return access is None or access.valid(request.cookies.get(COOKIE, ""))


def routes(access: Access | None, form: Path | None) -> list[Route]:
    """`form` is the page with the form, a bare one where there is none."""

    async def ask(request: Request) -> Response:
        return FileResponse(form) if form is not None else HTMLResponse(BARE)

    async def sign_in(request: Request) -> Response:
        if access is None:
            return RedirectResponse("/", 303)
        if not same_origin(request):
            return PlainTextResponse("Origin: expected the page's own\n", 403)
        password = await _password(request)
        if password is None:
            return PlainTextResponse("expected a form with the field password\n", 400)
        if not access.attempt():
            return PlainTextResponse("too many attempts\n", 429, {"Retry-After": str(int(ATTEMPT_S))})
        token = await run_in_threadpool(access.sign_in, password)
        if token is None:
            return PlainTextResponse("wrong password\n", 401)
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, token, httponly=True, samesite="strict")
        return answer

    async def sign_out(request: Request) -> Response:
        if not same_origin(request):
            return PlainTextResponse("Origin: expected the page's own\n", 403)
        if access is not None:
            access.sign_out(request.cookies.get(COOKIE, ""))
        answer = RedirectResponse("/sign-in", 303)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer

    return [
        Route("/sign-in", ask, methods=["GET"]),
        Route("/sign-in", sign_in, methods=["POST"]),
        Route("/sign-out", sign_out, methods=["POST"]),
    ]


def same_origin(request: HTTPConnection) -> bool:
    """Whether this page sent the request, or no browser: those name the origin of what changes something."""
    origins = request.headers.getlist("origin")
    return not origins or origins == [f"{request.url.scheme.replace('ws', 'http')}://{request.headers.get('host', '')}"]


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
