"""One HTTP server in a thread of its own, whose connections are bounded in number and time."""

import asyncio
import ipaddress
import socket
import ssl
import sys
from types import TracebackType
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from monitor.door import GOODBYE_S, MAX_CONNECTIONS, Door, Visitor
from monitor.errors import ServerError

LOOPBACK = "127.0.0.1"
MAX_HEADER_BYTES = 16384
MAX_MESSAGE_BYTES = 8192  # from a page
REQUEST_S = 10.0  # from the beginning of a connection or request to the request's end
UNREAD_S = 10.0  # that a client may leave an answer unread
KEEP_ALIVE_S = 20
STOP_S = 1  # what is under way may end in this time


class BoundedProtocol(H11Protocol):
    """uvicorn's protocol, whose clients may neither dawdle with a request nor leave its answer unread.

    uvicorn itself waits for ever for headers, a body or a reader.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._unread: asyncio.TimerHandle | None = None
        self._is_upgraded = False
        super().connection_made(transport)
        if sys.version_info < (3, 11) and transport.get_extra_info("ssl_object"):
            _says_goodbye_in_time(transport, self.loop)
        self._late: asyncio.TimerHandle | None = self.loop.call_later(REQUEST_S, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._in_time()
        if self._unread is not None:
            self._unread.cancel()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """From now on another protocol looks after the connection, which may last."""
        self._in_time()
        self._is_upgraded = True
        super().handle_websocket_upgrade(event)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._is_upgraded:
            return
        if self.conn.trailing_data[0]:  # a request before the last one's answer: no browser sends that
            self.transport.abort()
        if self.conn.their_state not in {h11.IDLE, h11.SEND_BODY}:  # the request is here as a whole
            self._in_time()
        elif self._late is None:
            self._late = self.loop.call_later(REQUEST_S, self.transport.abort)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(UNREAD_S, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _in_time(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def _says_goodbye_in_time(transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
    """TLS of Python 3.10 waits for ever for the other side's goodbye."""
    close = transport.close

    def close_in_time() -> None:
        close()
        loop.call_later(GOODBYE_S, transport.abort)

    transport.close = close_in_time  # type: ignore[method-assign]


class _Uvicorn(uvicorn.Server):
    """uvicorn's server behind a Door: the visitor is in the state of each request's scope."""

    def __init__(self, config: uvicorn.Config, tls: ssl.SSLContext | None) -> None:
        super().__init__(config)
        self._tls = tls

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self.servers = [Door(listening, self._protocol, self._tls) for listening in sockets or ()]  # type: ignore[misc]
        self.started = True

    def _protocol(self, visitor: Visitor) -> asyncio.Protocol:
        return BoundedProtocol(self.config, self.server_state, {"visitor": visitor})


class Server:
    """Serves `app` at `address` and `port` while the block lasts and `run` runs. Raises ServerError.

    `stop`, from any thread, ends `run`, also one that has not begun.
    """

    def __init__(self, app: ASGIApp, port: int, address: str = LOOPBACK, tls: ssl.SSLContext | None = None) -> None:
        self._socket = _listen(address, port)
        self._server = _Uvicorn(uvicorn.Config(app, **_settings()), tls)
        shown = f"[{address}]" if ":" in address else address
        self.address = f"{'https' if tls else 'http'}://{shown}:{self._socket.getsockname()[1]}/"

    def __enter__(self) -> "Server":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def run(self) -> None:
        self._server.run(sockets=[self._socket])

    def ask_to_stop(self) -> None:
        self._server.should_exit = True


def _settings() -> dict[str, Any]:
    return {
        "http": BoundedProtocol,
        "ws": "websockets-sansio",
        "ws_max_size": MAX_MESSAGE_BYTES,
        "ws_per_message_deflate": False,
        "loop": "asyncio",
        "lifespan": "off",
        "log_config": None,  # the component's own
        "access_log": False,
        "log_level": "warning",
        "proxy_headers": False,
        "server_header": False,
        "h11_max_incomplete_event_size": MAX_HEADER_BYTES,
        "timeout_keep_alive": KEEP_ALIVE_S,
        "timeout_graceful_shutdown": STOP_S,
    }


def _listen(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
    listening = socket.socket(family)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Inherited by connections: what was closed with an unread rest does not stay for ever either.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_S * 1000))
        listening.bind((address, port))
        listening.listen(MAX_CONNECTIONS)
    except OSError as error:
        listening.close()
        raise ServerError(f"{address}:{port} cannot be listened on: {error.strerror}") from error
    return listening
