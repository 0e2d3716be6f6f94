"""The WebSocket of a page: the state as it changes."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from monitor.state import State
from monitor.views import DeviceState

MAX_PAGES = 16
EVERY_S = 1.0
SEND_S = 10.0  # for a message to leave; a page that does not read is cut off


class Live:
    """All open pages of one server."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._pages = 0

    async def page(self, socket: WebSocket, allowed: Callable[[], bool]) -> None:
        """Serve one page until it leaves, or is no longer allowed, which is asked every second."""
        if not allowed() or self._pages >= MAX_PAGES:
            await socket.close(1008)
            return
        self._pages += 1
        try:
            await socket.accept()
            sending = asyncio.create_task(self._send(socket, allowed))
            try:
                while True:
                    await socket.receive_text()  # nothing that a page can ask for yet
            except (WebSocketDisconnect, KeyError):  # KeyError: binary
                pass
            finally:
                sending.cancel()
                with suppress(asyncio.CancelledError):
                    await sending
        finally:
            self._pages -= 1

    async def _send(self, socket: WebSocket, allowed: Callable[[], bool]) -> None:
        former = None
        with suppress(TimeoutError, WebSocketDisconnect, RuntimeError):  # RuntimeError: it is closed already
            while allowed():
                state = self._state.snapshot()
                if (now := _timeless(state)) != former:
                    former = now
                    text = msgspec.json.encode({"type": "state", "state": state}).decode()
                    await asyncio.wait_for(socket.send_text(text), SEND_S)
                await asyncio.sleep(EVERY_S)
            await socket.close(1008)


def _timeless(state: DeviceState) -> DeviceState:
    components = [msgspec.structs.replace(component, seen=0.0) for component in state.components]
    attention = [msgspec.structs.replace(item, since=0.0) for item in state.attention]
    pipelines = [msgspec.structs.replace(pipeline, at=0.0) for pipeline in state.pipelines]
    return msgspec.structs.replace(state, time=0.0, components=components, attention=attention, pipelines=pipelines)
