"""What answers to which path."""

from collections.abc import Callable, Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from edgeml.messages import Problem
from monitor import signing
from monitor.access import Access
from monitor.guard import Guard


def application(static: Path, problems: Callable[[], Sequence[Problem]], access: Access | None = None) -> ASGIApp:
    """The page of the folder `static`; `problems` are asked for at each look at /healthz.

    Without `access` nobody is asked for a password.
    """

    # Listed once: nothing that a request says becomes a path.
    files = {str(path.relative_to(static)): path for path in static.rglob("*") if path.is_file()}

    async def index(request: Request) -> Response:
        return sent("index.html") if signing.signed_in(request, access) else RedirectResponse("/sign-in", 302)

    async def file(request: Request) -> Response:
        return sent(request.path_params["path"])

    def sent(name: str) -> Response:
        if name not in files:
            raise HTTPException(404)
        return FileResponse(files[name])

    async def healthz(request: Request) -> Response:
        """200 while nothing needs attention, else 503 with a line for each reason."""
        found = [f"{problem.code} {problem.subject}: {problem.text}\n" for problem in problems()]
        return PlainTextResponse("".join(found) or "ok\n", status_code=503 if found else 200)

    routes = [
        Route("/", index),
        Route("/healthz", healthz),
        Route("/static/{path:path}", file),
        *signing.routes(access, files.get("sign-in.html")),
    ]
    return Guard(Starlette(routes=routes))  # around all of it: what fails has the headers, too
