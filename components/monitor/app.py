"""What answers to which path."""

from pathlib import Path

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import FileResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from monitor import signing
from monitor.access import Access
from monitor.guard import Guard
from monitor.live import Live
from monitor.metrics import CONTENT_TYPE, Metrics
from monitor.pictures import Cameras
from monitor.requested import Requested
from monitor.state import State
from monitor.streams import Streams


def application(
    static: Path,
    state: State,
    access: Access | None = None,
    hosts: frozenset[str] = frozenset(),
    cameras: Cameras | None = None,
    requested: Requested | None = None,
) -> ASGIApp:
    """The page of the folder `static` and what `state` knows, under the names `hosts` beside those of loopback.

    Without `access` nobody is asked for a password, without `cameras` nothing is seen of them,
    without `requested` nothing of what requests named.
    """

    # Listed once: nothing that a request says becomes a path.
    files = {str(path.relative_to(static)): path for path in static.rglob("*") if path.is_file()}

    def signed_in(request: HTTPConnection) -> bool:
        return signing.signed_in(request, access)

    live = Live(state, cameras)

    async def socket(page: WebSocket) -> None:
        await live.page(page, lambda: signed_in(page))

    async def index(request: Request) -> Response:
        return sent("index.html") if signed_in(request) else RedirectResponse("/sign-in", 302)

    async def file(request: Request) -> Response:
        return sent(request.path_params["path"])

    def sent(name: str) -> Response:
        if name not in files:
            raise HTTPException(404)
        return FileResponse(files[name])

    async def api_state(request: Request) -> Response:
        if not signed_in(request):
            return PlainTextResponse("sign in first\n", 401)
        return Response(msgspec.json.encode(await run_in_threadpool(state.snapshot)), media_type="application/json")

    scrape = Metrics(state)

    async def metrics(request: Request) -> Response:
        if not signed_in(request):
            # Not Basic, for which browsers would ask, and then send the password wherever others make them go.
            return PlainTextResponse("sign in first\n", 401, {"WWW-Authenticate": "Bearer"})
        return Response(await run_in_threadpool(scrape.text), media_type=CONTENT_TYPE)

    async def healthz(request: Request) -> Response:
        """200 while nothing needs attention, else 503 with a line for each reason: to strangers without its text."""
        told = signed_in(request)
        lines = [f"{item.component} {item.code} {item.subject}: {item.text}" for item in state.attention()]
        words = "\n".join(" ".join((line if told else line.split(" ", 2)[0]).split()) for line in lines)
        return PlainTextResponse(f"{words or 'ok'}\n", status_code=503 if lines else 200)

    routes = [
        Route("/", index),
        WebSocketRoute("/ws", socket),
        Route("/healthz", healthz),
        Route("/metrics", metrics),
        Route("/api/state", api_state),
        Route("/static/{path:path}", file),
        *Streams(state, cameras, access).routes(),
        *([requested.route(access)] if requested is not None else []),
        *signing.routes(access, files.get("sign-in.html")),
    ]
    return Guard(Starlette(routes=routes), access, hosts)  # around all of it: what fails has the headers, too
