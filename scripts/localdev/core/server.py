"""The IPC socket: connections, their streams, and the way from a frame to an operation's handler."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from localdev.core.profiles import CLI, LITE_OPERATIONS, PLUGIN_OPERATIONS, Profile
from localdev.core.rpc import (
    NAMESPACE,
    TERMINATE_STREAM,
    VERSION,
    MessageType,
    RpcError,
    UnreadableError,
    connect_ack,
    connection_error,
    dump,
    error,
    internal_error,
    message,
    parse_request,
    parse_token,
    ping_response,
    service_error,
)
from localdev.core.wire import MAX_FRAME_BYTES, Decoder, Frame, FrameError, HeaderType

MAX_UNSENT_BYTES = 64 * 1024 * 1024
MAX_LITE_CLIENTS = 50
CLOSE_SECONDS = 1.0
LAST_WORDS_SECONDS = 0.05

Body = dict[str, Any]
Handler = Callable[["Stream", Body], Body | Coroutine[Any, Any, Body]]


class Stream:
    """One operation call. A handler that subscribes keeps the stream and sends events on it."""

    def __init__(self, connection: "Connection", stream_id: int, operation: str) -> None:
        self.operation = operation
        self.principal = connection.principal
        self.streaming = False
        self.on_closed: Callable[[], None] = lambda: None
        self._connection = connection
        self._id = stream_id
        self._early: list[bytes] | None = []  # events before the answer, which clients take for the answer

    def answered(self) -> None:
        """The answer is on its way: events may follow it."""
        early, self._early = self._early, None
        for frame in early or ():
            self._connection.send(frame)

    def send_event(self, shape: str, payload: bytes) -> None:
        """Sends one event; `payload` is the JSON of the union shape. One too large for the client is lost."""
        try:
            frame = message(self._id, shape, payload)
        except FrameError as problem:
            self._connection.complain(f"event lost: {problem}")
            return
        if len(frame) > self._connection.frame_limit:
            self._connection.complain(f"event lost: frame of {len(frame)} bytes")
            return
        if self._early is not None:
            self._early.append(frame)
            return
        self._connection.send(frame)


class Connection(asyncio.Protocol):
    """One client. Everything it does happens on the event loop's thread."""

    def __init__(self, server: "Server") -> None:
        self.principal = ""
        self._server = server
        self._decoder = Decoder(server.profile.frame_limit)
        self._streams: dict[int, Stream] = {}
        self._last_stream = 0
        self._closing = False
        self._unsent: list[bytes] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._transport: asyncio.Transport

    @property
    def frame_limit(self) -> int:
        """Bytes of the largest frame that this client may send and get."""
        return self._decoder.limit

    @property
    def subscriptions(self) -> int:
        """Streams on which events may still come."""
        return sum(stream.streaming for stream in self._streams.values())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  (what create_unix_server makes)
        self._transport = transport
        self._server.connections.add(self)
        if self._server.profile is Profile.LITE and len(self._server.connections) > MAX_LITE_CLIENTS:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        for task in self._tasks:
            task.cancel()
        for stream in list(self._streams.values()):
            stream.on_closed()
        self._streams.clear()

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._decoder.feed(data):
                self._receive(frame)
                if self._closing:
                    return
        except FrameError as problem:
            self.complain(str(problem))
            self.disconnect()

    def complain(self, problem: str) -> None:
        """Writes what is wrong with this client to the core's log."""
        self._server.complain(f"{self.principal or 'a client'}: {problem}")

    def send(self, frame: bytes) -> None:
        """Queues a frame; what one turn of the event loop queues goes out in one write."""
        if not self._unsent:
            self._server.loop.call_soon(self._flush)
        self._unsent.append(frame)

    def _flush(self) -> None:
        data, self._unsent = b"".join(self._unsent), []
        if self._transport.is_closing():
            return
        self._transport.write(data)
        if self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            self.complain("disconnected, for it does not read its messages")
            self._transport.abort()

    def disconnect(self, last_words: bytes = b"") -> None:
        """Closes the connection after everything queued has been sent."""
        self._closing = True
        self._unsent.append(last_words)
        self._flush()
        if last_words and not self._transport.is_closing():
            # A client that sees the end of the connection with the last words does not read them.
            self._transport.pause_reading()
            self._server.loop.call_later(LAST_WORDS_SECONDS, self._transport.close)
        else:
            self._transport.close()

    def abort(self) -> None:
        """Closes the connection at once."""
        self._transport.abort()

    def _receive(self, frame: Frame) -> None:
        try:
            kind = _int32(frame, ":message-type")
            flags = _int32(frame, ":message-flags")
            stream_id = _int32(frame, ":stream-id")
        except KeyError:
            self._refuse("a required header is missing")
            return
        if not self.principal:
            self._connect(kind, stream_id, frame)
        elif stream_id > 0 and kind in _ON_STREAMS:
            self._receive_on_stream(stream_id, flags, frame)
        elif stream_id == 0 and kind == MessageType.PING and self._server.profile is Profile.JAVA:
            self.send(ping_response(frame))
        elif stream_id != 0 or kind != MessageType.PING_RESPONSE:
            self.complain(f"message type {kind} on stream {stream_id}")
            self.disconnect(connection_error(MessageType.INTERNAL_ERROR, "Unexpected message"))

    def _refuse(self, reason: str) -> None:
        self.complain(reason)
        self.disconnect(connection_error(MessageType.PROTOCOL_ERROR, reason))

    def _connect(self, kind: int, stream_id: int, frame: Frame) -> None:
        if kind != MessageType.CONNECT or stream_id != 0:
            self._refuse("the first message must be CONNECT")
            return
        version = frame.headers.get(":version", (HeaderType.STRING, None))[1]
        principal = self._server.authenticate(parse_token(frame.payload)) if version == VERSION else None
        if principal is None:
            self.complain("refused: unknown token or protocol version")
            # Lite closes without a word.
            self.disconnect(b"" if self._server.profile is Profile.LITE else connect_ack(False))
            return
        self.principal = principal
        if principal == CLI:
            self._decoder.limit = MAX_FRAME_BYTES
        self.send(connect_ack(True))

    def _receive_on_stream(self, stream_id: int, flags: int, frame: Frame) -> None:
        if stream_id <= self._last_stream:
            stream = self._streams.get(stream_id)
            if stream and flags & TERMINATE_STREAM:
                del self._streams[stream_id]
                stream.on_closed()
            return
        if stream_id != self._last_stream + 1:
            self._refuse(f"stream {stream_id} after stream {self._last_stream}")
            return
        self._last_stream = stream_id
        operation = frame.headers.get("operation", (HeaderType.STRING, ""))[1]
        stream = self._streams[stream_id] = Stream(self, stream_id, str(operation).removeprefix(NAMESPACE))
        self._call(stream, stream_id, frame.payload)

    def _call(self, stream: Stream, stream_id: int, payload: bytes) -> None:
        try:
            handler = self._server.find(stream.principal, stream.operation)
            answer = handler(stream, parse_request(payload))
        except Exception as failure:  # noqa: BLE001  (the client gets it; the core must live on)
            self._fail(stream, stream_id, failure)
            return
        if isinstance(answer, dict):
            self._answer(stream, stream_id, answer)
            return
        task = self._server.loop.create_task(self._finish(stream, stream_id, answer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(self, stream: Stream, stream_id: int, answer: Coroutine[Any, Any, Body]) -> None:
        try:
            body = await answer
        except Exception as failure:  # noqa: BLE001  (the client gets it; the core must live on)
            self._fail(stream, stream_id, failure)
            return
        if stream_id in self._streams:
            self._answer(stream, stream_id, body)
        else:
            stream.on_closed()

    def _answer(self, stream: Stream, stream_id: int, body: Body) -> None:
        flags = 0
        if not stream.streaming:
            self._streams.pop(stream_id, None)
            # Lite never says that a stream ends well.
            flags = 0 if self._server.profile is Profile.LITE else TERMINATE_STREAM
        self.send(message(stream_id, stream.operation + "Response", dump(body) if body else b"{}", flags))
        stream.answered()

    def _fail(self, stream: Stream, stream_id: int, failure: Exception) -> None:
        self._streams.pop(stream_id, None)
        if isinstance(failure, RpcError):
            self.send(error(stream_id, failure, short=self._server.profile is Profile.LITE))
        else:
            self.complain(f"{stream.operation} failed: {failure!r}")
            self.send(internal_error(stream_id))


class Server:
    """Listens on a Unix socket. `authenticate` gives the component that a token belongs to, or None."""

    def __init__(
        self,
        profile: Profile,
        handlers: Mapping[str, Handler],
        authenticate: Callable[[str], str | None],
        complain: Callable[[str], None],
    ) -> None:
        self.profile = profile
        self.authenticate = authenticate
        self.complain = complain
        self.connections: set[Connection] = set()
        self.loop: asyncio.AbstractEventLoop
        self._handlers = handlers
        self._listener: asyncio.Server

    async def start(self, path: Path) -> None:
        """Listens at `path`, whose mode lets every user connect: the token is the gate, as in the nucleus."""
        self.loop = asyncio.get_running_loop()
        self._listener = await self.loop.create_unix_server(lambda: Connection(self), path)
        path.chmod(0o666)

    async def stop(self) -> None:
        """Closes the socket and every connection."""
        self._listener.close()
        for connection in list(self.connections):
            connection.disconnect()
        try:
            await asyncio.wait_for(self._listener.wait_closed(), CLOSE_SECONDS)
        except TimeoutError:
            self.abort()

    def abort(self) -> None:
        """Ends every connection at once."""
        for connection in list(self.connections):
            connection.abort()

    def find(self, principal: str, operation: str) -> Handler:
        """The handler of an operation that this profile offers. RpcError if there is none."""
        handler = self._handlers.get(operation)
        if self.profile is Profile.LITE and operation not in LITE_OPERATIONS and principal != CLI:
            raise service_error("Unhandled operation")
        if handler is not None:
            return handler
        if operation in PLUGIN_OPERATIONS:
            raise service_error(f"Operation {NAMESPACE}{operation} is not supported by Greengrass")
        raise UnreadableError(f"no operation {operation!r}")


_ON_STREAMS = (int(MessageType.APPLICATION_MESSAGE), int(MessageType.APPLICATION_ERROR))
_INT32 = int(HeaderType.INT32)


def _int32(frame: Frame, name: str) -> int:
    kind, value = frame.headers[name]
    if kind != _INT32:
        raise KeyError(name)
    assert isinstance(value, int)  # noqa: S101  (the decoder made one)
    return value
