"""The WebSocket of a page. It carries the state, results, records and pictures, and what the page wants of them.

From the page: `{"watch": {camera: {"max_width"}}, "follow": [pipeline], "records": bool}`, what it wants from now on;
`{"shown": {"camera", "frame_id"}}`, the receipt of a picture; `{"command": {"camera", "command": "start" | "stop"}}`.
A page that is slow gets fewer pictures, and the newest of each camera when it is ready for one.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Literal

import anyio
import msgspec
from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocket, WebSocketDisconnect

from monitor.attempts import Bucket
from monitor.pictures import MAX_WATCHED, Cameras, Picture
from monitor.state import State
from monitor.views import DeviceState

MAX_PAGES = 16
EVERY_S = 1.0
AT_LEAST_S = 10.0  # a page takes a device that says nothing for longer for one that is gone
SEND_S = 10.0  # for a message to leave; a page that does not read is cut off
CLOSE_S = 1.0  # for a page to take that it is cut off
MAX_WAITING = 200  # messages for a page; of more the oldest are dropped
UNSHOWN, SHOWN_S = 2, 5.0  # pictures of a camera under way to a page; how long a receipt is waited for
MAX_FOLLOWED = 8
MAX_SAID, PAUSE_S = 1000, 0.02  # messages of a page in a second: a receipt for each picture; more wait


class _Width(msgspec.Struct):
    max_width: int = 320


class _Shown(msgspec.Struct):
    camera: str
    frame_id: int


class _Command(msgspec.Struct):
    camera: str
    command: Literal["start", "stop"]


class _Said(msgspec.Struct):
    """What a page says, each part of it if it says that."""

    watch: dict[str, _Width] | None = None
    follow: list[str] | None = None
    records: bool | None = None
    shown: _Shown | None = None
    command: _Command | None = None


class Live:
    """All open pages of one server."""

    def __init__(self, state: State, cameras: Cameras | None) -> None:
        self.state, self.cameras = state, cameras
        self._pages = 0
        self._making = asyncio.Lock()
        self._made_at, self._version, self._text = -EVERY_S, 0, ""
        self._former: DeviceState | None = None

    async def page(self, socket: WebSocket, allowed: Callable[[], bool]) -> None:
        """Serve one page until it leaves, stalls, or is no longer allowed, which is asked every second."""
        if not allowed() or self._pages >= MAX_PAGES:
            await socket.close(1008)
            return
        self._pages += 1
        page = _Page(self, socket, allowed)
        try:
            await socket.accept()
            self.state.listen(page.told)
            ways = [asyncio.create_task(page.send()), asyncio.create_task(page.hear())]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
            with suppress(WebSocketDisconnect, RuntimeError), anyio.move_on_after(CLOSE_S):
                await socket.close(1008)  # RuntimeError: it is closed already
        finally:
            self.state.unlisten(page.told)
            page.leave()
            self._pages -= 1

    async def current(self) -> tuple[int, str]:
        """The state as a message, made at most once a second for all pages; its number changes when it does."""
        async with self._making:
            if time.monotonic() - self._made_at >= EVERY_S:
                self._made_at = time.monotonic()
                state = await run_in_threadpool(self.state.snapshot)
                if (timeless := _timeless(state)) != self._former:
                    self._former, self._version = timeless, self._version + 1
                self._text = msgspec.json.encode({"type": "state", "state": state}).decode()
            return self._version, self._text


class _Page:
    """One page: what it wants, and what waits for it."""

    def __init__(self, live: Live, socket: WebSocket, allowed: Callable[[], bool]) -> None:
        self._live, self._socket, self._allowed = live, socket, allowed
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        self._waking = False
        self._watched: dict[str, tuple[int, Callable[[], None]]] = {}
        self._followed: frozenset[str] = frozenset()
        self._records = False
        self._messages: deque[bytes] = deque(maxlen=MAX_WAITING)
        self._pictures: dict[str, Picture] = {}
        self._under_way: dict[str, deque[float]] = {}  # when pictures were sent whose receipts are to come
        self._commanded = -EVERY_S
        self._said = Bucket(MAX_SAID, 1 / MAX_SAID, MAX_SAID, time.monotonic())

    def told(self, kind: str, name: str, told: Any, message: bytes) -> None:
        """Of a result, event or record, on another thread."""
        wanted = {"record": self._records, "reply": name in self._watched}.get(kind, name in self._followed)
        if wanted:
            self._messages.append(message)
            self._call()

    def leave(self) -> None:
        self._want_records(False)
        for _, unwatch in self._watched.values():
            unwatch()
        self._watched = {}

    async def send(self) -> None:
        """Send what there is until the page stalls, leaves or is no longer allowed."""
        known, sent_at, looked_at = -1, 0.0, -EVERY_S
        with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
            while True:
                now = time.monotonic()
                if now - looked_at >= EVERY_S:
                    looked_at = now
                    if not self._allowed():
                        return
                    version, text = await self._live.current()
                    if version != known or now - sent_at >= AT_LEAST_S:
                        known, sent_at = version, now
                        await self._sent(text)
                await self._send_waiting()
                with anyio.move_on_after(max(0.0, looked_at + EVERY_S - time.monotonic())):
                    await self._wake.wait()
                self._wake.clear()

    async def _send_waiting(self) -> None:
        while self._messages:
            await self._sent(self._messages.popleft().decode())
        for camera in list(self._pictures):
            under_way = self._under_way.setdefault(camera, deque(maxlen=UNSHOWN))
            now = time.monotonic()
            while under_way and now - under_way[0] > SHOWN_S:
                under_way.popleft()
            if len(under_way) < UNSHOWN and (picture := self._pictures.pop(camera, None)) is not None:
                under_way.append(now)
                await self._sent(_binary(picture))

    async def _sent(self, message: str | bytes) -> None:
        """Send it, in time. Raises TimeoutError, WebSocketDisconnect, RuntimeError."""
        with anyio.fail_after(SEND_S):
            if isinstance(message, str):
                await self._socket.send_text(message)
            else:
                await self._socket.send_bytes(message)

    async def hear(self) -> None:
        """Take what the page says until it leaves, or says what no page says."""
        with suppress(WebSocketDisconnect, KeyError, msgspec.MsgspecError, RuntimeError):  # KeyError: binary
            while True:
                while not self._said.take(time.monotonic()):
                    await asyncio.sleep(PAUSE_S)
                said = msgspec.json.decode(await self._socket.receive_text(), type=_Said)
                if said.shown is not None:
                    self._shown(said.shown.camera)
                if said.watch is not None:
                    self._watch(said.watch)
                if said.follow is not None:
                    self._follow(said.follow)
                if said.records is not None:
                    self._want_records(said.records)
                if said.command is not None:
                    await self._command(said.command)

    def _shown(self, camera: str) -> None:
        under_way = self._under_way.get(camera)
        if under_way:
            under_way.popleft()
            self._wake.set()

    def _watch(self, wanted: dict[str, _Width]) -> None:
        """Watch these cameras and no others; what is watched already goes on."""
        kept = {camera: each.max_width for camera, each in list(wanted.items())[:MAX_WATCHED]}
        for camera, (width, leave) in list(self._watched.items()):
            if kept.get(camera) != width:
                leave()
                del self._watched[camera]
                self._pictures.pop(camera, None)
        cameras = self._live.cameras
        for camera, width in kept.items():
            if cameras is not None and camera not in self._watched:
                unwatch = cameras.pictures.watch(camera, width, self._picture)
                if unwatch is not None:
                    self._watched[camera] = width, unwatch

    def _picture(self, picture: Picture) -> None:
        """The newest picture of a camera, on its thread; one that was not sent yet is left out."""
        if picture.camera in self._watched:
            self._pictures[picture.camera] = picture
            self._call()

    def _follow(self, pipelines: list[str]) -> None:
        before, self._followed = self._followed, frozenset(pipelines[:MAX_FOLLOWED])
        for pipeline in sorted(self._followed - before):
            self._messages.extend(self._live.state.followed(pipeline))
        self._wake.set()

    def _want_records(self, wanted: bool) -> None:
        if wanted and not self._records:
            self._messages.extend(self._live.state.records())
            self._wake.set()
        if wanted != self._records:
            self._records = wanted
            self._live.state.want_records(1 if wanted else -1)

    async def _command(self, command: _Command) -> None:
        """Pass it on to a camera that may be commanded; who says more than one a second waits."""
        cameras = self._live.cameras
        await asyncio.sleep(max(0.0, self._commanded + EVERY_S - time.monotonic()))
        self._commanded = time.monotonic()
        known = await run_in_threadpool(self._live.state.cameras)
        allowed = {camera.name for camera in known if command.command in camera.commands}
        if cameras is not None and self._allowed() and command.camera in allowed:
            await run_in_threadpool(cameras.command, command.camera, command.command)

    def _call(self) -> None:
        """Wake the sender, from any thread; once until it has woken."""
        if self._waking:
            return
        self._waking = True
        with suppress(RuntimeError):  # the server has stopped
            self._loop.call_soon_threadsafe(self._woken)

    def _woken(self) -> None:
        self._waking = False
        self._wake.set()


class _Header(msgspec.Struct):
    camera: str
    frame_id: int
    captured_at: float
    sent_at: float
    width: int
    height: int
    source_width: int
    source_height: int
    results: msgspec.Raw


def _binary(picture: Picture) -> bytes:
    """4 bytes length, JSON header, JPEG."""
    header = msgspec.json.encode(
        _Header(
            camera=picture.camera,
            frame_id=picture.frame_id,
            captured_at=picture.captured_at,
            sent_at=time.time(),
            width=picture.width,
            height=picture.height,
            source_width=picture.source_width,
            source_height=picture.source_height,
            results=msgspec.Raw(picture.results),
        )
    )
    return b"".join((len(header).to_bytes(4, "big"), header, picture.jpeg))


def _timeless(state: DeviceState) -> DeviceState:
    components = [msgspec.structs.replace(component, seen=0.0) for component in state.components]
    attention = [msgspec.structs.replace(item, since=0.0) for item in state.attention]
    pipelines = [msgspec.structs.replace(pipeline, at=0.0) for pipeline in state.pipelines]
    models = [msgspec.structs.replace(model, seen=0.0) for model in state.models]
    return msgspec.structs.replace(
        state, time=0.0, components=components, attention=attention, pipelines=pipelines, models=models
    )
