"""Pictures that requests named: from below folders of the configuration alone, made anew, never a file's own bytes.

A browser names a result, not a file. Who may publish results names files, so each one is as good as a stranger's.
"""

import asyncio
import logging
from collections.abc import Sequence
from pathlib import Path

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from edgeml.errors import PictureError
from edgeml.log import kv
from monitor import signing
from monitor.access import Access
from monitor.errors import EncodeError
from monitor.state import State

log = logging.getLogger(__name__)

FORMATS = ("JPEG", "PNG")  # as the Inferencer reads
MAX_PIXELS = 25_000_000
MAX_BYTES = 32 << 20
MAX_WAITING = 16  # as many as there are pages
ANSWER_S = 5.0  # for a picture, waiting for others included


class Requested:
    """Answers with the picture of one result, one after the other. `folders` may be links; they need not exist."""

    def __init__(self, state: State, folders: Sequence[str], max_width: int) -> None:
        self._state, self._folders, self._max_width = state, [Path(folder) for folder in folders], max_width
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._last: tuple[tuple[str, float], bytes] | None = None  # for other pages that show the same
        self._reading: asyncio.Task[bytes | None] | None = None

    def route(self, access: Access | None) -> Route:
        async def answer(request: Request) -> Response:
            if not signing.signed_in(request, access):
                return PlainTextResponse("sign in first\n", 401)
            return await self._answer(request)

        return Route("/result/{pipeline}.jpg", answer)

    async def _answer(self, request: Request) -> Response:
        if self._waiting >= MAX_WAITING:
            return PlainTextResponse(f"{MAX_WAITING} pictures are waited for\n", 503, {"Retry-After": "5"})
        self._waiting += 1
        try:
            pipeline, at = request.path_params["pipeline"], _number(request.query_params.get("at", ""))
            with anyio.fail_after(ANSWER_S):
                async with self._turn:
                    jpeg = await self._next(pipeline, at)
        except TimeoutError:
            return PlainTextResponse("the picture takes too long\n", 503, {"Retry-After": "5"})
        finally:
            self._waiting -= 1
        if jpeg is None:
            return PlainTextResponse("there is no such picture\n", 404)
        return Response(jpeg, media_type="image/jpeg")

    async def _next(self, pipeline: str, at: float | None) -> bytes | None:
        """The picture of the result that was made `at`. What was given up before ends first: a thread goes on."""
        if self._reading is not None:
            await asyncio.wait([self._reading])
        self._reading = asyncio.create_task(run_in_threadpool(self._picture, pipeline, at))
        return await asyncio.shield(self._reading)

    def _picture(self, pipeline: str, at: float | None) -> bytes | None:
        if at is None or not self._state.shows_requested(pipeline):
            return None
        file = self._state.requested(pipeline, at)
        if not file:
            return None
        if self._last is None or self._last[0] != (pipeline, at):
            try:
                self._last = (pipeline, at), self._made(file)
            except (PictureError, EncodeError) as error:
                log.debug("no picture of a result %s", kv(pipeline=pipeline, error=error))
                return None
        return self._last[1]

    def _made(self, file: str) -> bytes:
        """A JPEG, within a square of `max_width`. Raises PictureError and EncodeError."""
        from edgeml import pictures
        from monitor import encode

        try:
            path, below = Path(file).resolve(), [folder.resolve() for folder in self._folders]
        except (OSError, ValueError, RuntimeError) as error:  # a NUL byte, a loop of links
            raise PictureError(f"{file!r} is no path: {error}") from error
        if not any(path.is_relative_to(folder) for folder in below):
            raise PictureError(f"{pictures.shown(path)} is not below one of request_dirs")
        data = pictures.file_bytes(path, max_bytes=MAX_BYTES, below=below)
        image = pictures.decoded(data, pictures.shown(path), max_pixels=MAX_PIXELS, formats=FORMATS)
        height, width = image.shape[:2]
        most = min(self._max_width, width * self._max_width // height)
        if not most:
            raise PictureError(f"{pictures.shown(path)}: {width}x{height} pixels are a line")
        return encode.jpeg(encode.scaled(image, "bgr24", most, copy=False))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
