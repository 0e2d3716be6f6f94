"""What answers to which path."""

from collections.abc import Callable, Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from edgeml.messages import Problem
from monitor.guard import Guard


def application(static: Path, problems: Callable[[], Sequence[Problem]]) -> ASGIApp:
    """The page of the folder `static`; `problems` are asked for at each look at /healthz."""

    # Listed once: nothing that a request says becomes a path.
    files = {str(path.relative_to(static)): path for path in static.rglob("*") if path.is_file()}

    async def page(request: Request) -> Response:
        file = files.get(request.path_params.get("path", "index.html"))
        if file is None:
            raise HTTPException(404)
        return FileResponse(file)

    async def healthz(request: Request) -> Response:
        """200 while nothing needs attention, else 503 with a line for each reason."""
        found = [f"{problem.code} {problem.subject}: {problem.text}\n" for problem in problems()]
        return PlainTextResponse("".join(found) or "ok\n", status_code=503 if found else 200)

    routes = [
        Route("/", page),
        Route("/healthz", healthz),
        Route("/static/{path:path}", page),
    ]
    return Guard(Starlette(routes=routes))  # around all of it: what fails has the headers, too
