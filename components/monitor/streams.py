"""Pictures and what happens over plain HTTP, for other people's tools: MJPEG, one JPEG, server-sent events."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from monitor import signing
from monitor.access import Access
from monitor.pictures import Cameras, Picture
from monitor.state import State

MAX_STREAMS = 8
LONGEST_S = 3600.0  # a client that still looks asks anew
PICTURE_S = 5.0  # for a camera to give one
LOOK_S = 1.0  # between two looks whether the session has ended
QUIET_S = 15.0  # after which an event stream says that it lives
MAX_WAITING = 200  # events for a client; of more the oldest are dropped
BOUNDARY = "frame"
NO_PICTURE = "this camera gives no picture now\n"


class Streams:
    """All streams of one server, each for who has signed in."""

    def __init__(self, state: State, cameras: Cameras | None, access: Access | None) -> None:
        self._state, self._cameras, self._access = state, cameras, access
        self.open = 0

    def routes(self) -> list[Route]:
        return [
            Route("/camera/{name}.mjpeg", _Asked(self, self._mjpeg)),
            Route("/camera/{name}.jpg", _Asked(self, self._jpg)),
            Route("/api/events", _Asked(self, self._events)),
        ]

    def refusal(self, request: Request) -> Response | None:
        """Why a request gets no stream, if it gets none."""
        if not signing.signed_in(request, self._access):
            return PlainTextResponse("sign in first\n", 401)
        if self.open >= MAX_STREAMS:
            return PlainTextResponse(f"{MAX_STREAMS} streams are open\n", 503, {"Retry-After": "5"})
        return None

    async def _jpg(self, request: Request) -> Response:
        """The next picture, with its boxes."""
        picture = None
        if await self._known(request):
            async with self._watched(request) as newest:
                picture = None if newest is None else await newest.next(PICTURE_S)
        if picture is None:
            return PlainTextResponse(NO_PICTURE, 404)
        return Response(picture.jpeg, media_type="image/jpeg", headers=_facts(picture))

    async def _mjpeg(self, request: Request) -> Response:
        """Pictures with their boxes, each as soon as it is there and the client is ready for it."""
        if not await self._known(request):
            return PlainTextResponse(NO_PICTURE, 404)

        async def parts() -> AsyncIterator[bytes]:
            async with self._watched(request) as newest:
                while newest is not None and self._goes_on(request, began):
                    picture = await newest.next(LOOK_S)
                    if picture is not None:
                        yield _part(picture)

        began = time.monotonic()
        return StreamingResponse(parts(), media_type=f"multipart/x-mixed-replace; boundary={BOUNDARY}")

    async def _events(self, request: Request) -> Response:
        """Results, events and records as they come, each as one server-sent event of that name."""

        async def lines() -> AsyncIterator[bytes]:
            queue = _Queue()
            self._state.listen(queue.put)
            try:
                yield b": here\n\n"
                while self._goes_on(request, began):
                    yield await queue.next(QUIET_S)
            finally:
                self._state.unlisten(queue.put)

        began = time.monotonic()
        return StreamingResponse(lines(), media_type="text/event-stream")

    async def _known(self, request: Request) -> bool:
        names = await run_in_threadpool(self._state.neighbours.known().camera_names)
        return request.path_params["name"] in names

    def _goes_on(self, request: Request, began: float) -> bool:
        return time.monotonic() - began < LONGEST_S and signing.signed_in(request, self._access)

    @asynccontextmanager
    async def _watched(self, request: Request) -> "AsyncIterator[_Newest | None]":
        """The newest picture of the camera that a request names; None where nothing can be watched."""
        newest, unwatch = _Newest(), None
        if self._cameras is not None:
            pictures = self._cameras.pictures
            unwatch = pictures.watch(request.path_params["name"], pictures.max_width, newest.put, burnt=True)
        try:
            yield None if unwatch is None else newest
        finally:
            if unwatch is not None:
                unwatch()


class _Asked:
    """Answers GET requests to one path; each counts as a stream from its beginning to the end of its answer."""

    def __init__(self, streams: Streams, answer: Callable[[Request], Awaitable[Response]]) -> None:
        self._streams, self._answer = streams, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.method != "GET":
            raise HTTPException(405, headers={"Allow": "GET"})
        refusal = self._streams.refusal(request)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        self._streams.open += 1
        try:
            await (await self._answer(request))(scope, receive, send)
        finally:
            self._streams.open -= 1


class _Newest:
    """Hands the newest picture from a camera's thread to a client that may be slower."""

    def __init__(self) -> None:
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        self._picture: Picture | None = None

    def put(self, picture: Picture) -> None:
        self._picture = picture
        with suppress(RuntimeError):  # the server has stopped
            self._loop.call_soon_threadsafe(self._wake.set)

    async def next(self, timeout: float) -> Picture | None:
        with anyio.move_on_after(timeout):
            await self._wake.wait()
        self._wake.clear()
        picture, self._picture = self._picture, None
        return picture


class _Queue:
    """Hands messages from other threads to a client; of too many the oldest are dropped."""

    def __init__(self) -> None:
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        self._waiting: deque[bytes] = deque(maxlen=MAX_WAITING)

    def put(self, kind: str, name: str, told: Any, message: bytes) -> None:
        self._waiting.append(b"event: %s\ndata: %s\n\n" % (kind.encode(), message))  # JSON of ours has no line ends
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wake.set)

    async def next(self, timeout: float) -> bytes:
        """All that waits, or a comment after `timeout` seconds."""
        with anyio.move_on_after(timeout):
            await self._wake.wait()
        self._wake.clear()
        taken = []
        while self._waiting:
            taken.append(self._waiting.popleft())
        return b"".join(taken) or b": quiet\n\n"


def _facts(picture: Picture) -> dict[str, str]:
    return {"x-frame-id": str(picture.frame_id), "x-captured-at": f"{picture.captured_at:.6f}"}


def _part(picture: Picture) -> bytes:
    facts = "".join(f"{name}: {value}\r\n" for name, value in _facts(picture).items())
    head = f"--{BOUNDARY}\r\ncontent-type: image/jpeg\r\ncontent-length: {len(picture.jpeg)}\r\n{facts}\r\n"
    return b"".join((head.encode(), picture.jpeg, b"\r\n"))
