"""Results to a stream of AWS Greengrass Stream Manager on this device, which exports them to the cloud.

Messages and codes are those of its SDK. The SDK's own client is not used: each attempt that fails leaves a thread and
an event loop behind, and it takes answers of any size.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
import uuid
from typing import Annotated, Any, Literal

from msgspec import Meta

from edgeml.errors import EdgemlError, RefusedError, SinkError
from edgeml.spool import Item
from inferencer.parts import Place, Sink
from inferencer.sinks.spooled import SpooledSettings, SpooledSink

MAX_ANSWER_BYTES = 64 << 10
SEGMENT_BYTES = 16 << 20  # what Stream Manager deletes at once, at most
TOLD = 200  # characters of what the server says
TOKEN = "AWS_CONTAINER_AUTHORIZATION_TOKEN"  # noqa: S105  (its name: the nucleus gives it to each component)
_CONNECT = b"\x01"  # version of the greeting, in both directions
_LATE = "no answer within the deadline"
_OLDER = ["1.0.0"]  # of the protocol; what is used here is the same in both


class StreamManagerSink(SpooledSettings, frozen=True, kw_only=True, tag="stream_manager", tag_field="type"):
    needs = ("stream_manager", "cbor2")

    stream: Annotated[
        str, Meta(pattern=r"^[A-Za-z0-9_ ,.-]{1,255}$(?!\n)", description="Stream; made where there is none")
    ] = "edgeml"
    stream_bytes: Annotated[int, Meta(ge=4 << 20, le=2**53, description="Size of a stream that is made")] = 256 << 20
    on_full: Annotated[
        Literal["overwrite", "reject"],
        Meta(description="Whether a stream that is made drops its oldest when it is full, or lets results wait here"),
    ] = "overwrite"
    port: Annotated[int, Meta(ge=1, le=65535, description="Port of Stream Manager on this device")] = 8088
    deadline_s: Annotated[float, Meta(gt=0, le=70, description="Limit for one attempt as a whole")] = 10.0

    def open(self, place: Place) -> Sink | None:
        return StreamManagerResults(self, place)


class StreamManagerResults(SpooledSink):
    """One connection, made with the first result and kept until it fails."""

    def __init__(self, settings: StreamManagerSink, place: Place) -> None:
        self._settings = settings
        self._connection: _Connection | None = None
        super().__init__(settings, place, "stream_manager")

    def send(self, item: Item, payload: bytes) -> None:
        """All of the SDK is called here, in the drainer's thread."""
        until = time.monotonic() + self._settings.deadline_s
        try:
            if self._connection is None:
                self._connection = _Connection(self._settings.port, until)
            self._append(self._connection, payload, until)
        except RefusedError:
            raise
        except Exception as error:  # the SDK's and cbor2's own, for odd answers: a connection, no more
            self._leave()
            why = error if isinstance(error, EdgemlError) else _LATE if isinstance(error, TimeoutError) else repr(error)
            raise SinkError(f"Stream Manager, port {self._settings.port}: {why}") from error

    def close(self) -> None:
        super().close()
        self._leave()

    def _append(self, connection: _Connection, payload: bytes, until: float) -> None:
        """Only a message that is too large is refused: what a full stream is told has no code of its own."""
        from stream_manager.data import AppendMessageRequest, ResponseStatusCode

        request = AppendMessageRequest(name=self._settings.stream, payload=payload)
        status, told = connection.ask("AppendMessage", request, until)
        if status is ResponseStatusCode.ResourceNotFound:
            _, why = connection.ask("CreateMessageStream", self._creation(), until)
            status, told = connection.ask("AppendMessage", request, until)  # another may have made it meanwhile
            told = why or told
        if status is ResponseStatusCode.RequestPayloadTooLarge:
            raise RefusedError(f"stream {self._settings.stream}: {told}")
        if status is not ResponseStatusCode.Success:
            raise SinkError(f"stream {self._settings.stream}: {told}")

    def _creation(self) -> Any:
        from stream_manager.data import CreateMessageStreamRequest, MessageStreamDefinition, Persistence, StrategyOnFull

        settings = self._settings
        overwrites = settings.on_full == "overwrite"
        definition = MessageStreamDefinition(
            name=settings.stream,
            max_size=settings.stream_bytes,
            stream_segment_size=min(SEGMENT_BYTES, settings.stream_bytes // 4),
            strategy_on_full=StrategyOnFull.OverwriteOldestData if overwrites else StrategyOnFull.RejectNewData,
            persistence=Persistence.File,
        )
        return CreateMessageStreamRequest(definition=definition)

    def _leave(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class _Connection:
    """Framed CBOR: 4 bytes of length, 1 of operation, the message. Raises OSError and SinkError."""

    def __init__(self, port: int, until: float) -> None:
        self._token = os.environ.get(TOKEN)
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=_left(until))
        try:
            self._greet(until)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()

    def ask(self, operation: str, request: Any, until: float) -> tuple[Any, str]:
        """The status of the answer, and what it says; nothing where it is success."""
        from stream_manager.data import ResponseStatusCode

        request.request_id = str(uuid.uuid4())
        self._send(operation, request, until)
        answer = self._receive(f"{operation}Response", until)
        if answer.get("requestId") != request.request_id:
            raise SinkError(f"{operation}: the answer is for another request")
        status = ResponseStatusCode(answer["status"])
        return status, "" if status is ResponseStatusCode.Success else self._told(status.name, answer)

    def _greet(self, until: float) -> None:
        from stream_manager.data import ConnectRequest, ResponseStatusCode, VersionInfo

        hello = ConnectRequest(
            request_id=str(uuid.uuid4()),
            protocol_version=VersionInfo.PROTOCOL_VERSION.value,
            other_supported_protocol_versions=_OLDER,
            auth_token=self._token,
        )
        self._send("Connect", hello, until, _CONNECT)
        version = self._read(1, until)
        if version != _CONNECT:
            raise SinkError(f"expected version 1 of the greeting, found {version[0]}")
        answer = self._receive("ConnectResponse", until)
        status = ResponseStatusCode(answer["status"])
        if status is not ResponseStatusCode.Success:
            raise SinkError(self._told(status.name, answer))
        agreed = answer.get("protocolVersion")
        if agreed not in (hello.protocol_version, *_OLDER):
            raise SinkError(f"expected protocol {hello.protocol_version}, found {str(agreed)[:TOLD]!r}")

    def _told(self, status: str, answer: dict[str, Any]) -> str:
        text = str(answer.get("errorMessage") or "")
        if self._token:
            text = text.replace(self._token, "***")
        return f"{status}: {text[:TOLD]!r}" if text else status

    def _send(self, operation: str, request: Any, until: float, before: bytes = b"") -> None:
        import cbor2
        from stream_manager.data import Operation

        body = cbor2.dumps(request.as_dict())
        frame = (len(body) + 1).to_bytes(4, "big") + bytes([Operation[operation].value]) + body
        self._socket.settimeout(_left(until))
        self._socket.sendall(before + frame)

    def _receive(self, operation: str, until: float) -> dict[str, Any]:
        import cbor2
        from stream_manager.data import Operation

        length = int.from_bytes(self._read(4, until), "big")
        if not 1 <= length <= MAX_ANSWER_BYTES:
            raise SinkError(f"expected an answer of 1 to {MAX_ANSWER_BYTES} bytes, found {length}")
        frame = self._read(length, until)
        if frame[0] != Operation[operation].value:
            raise SinkError(f"expected {operation}, found operation {frame[0]}")
        answer = cbor2.loads(frame[1:])
        if not isinstance(answer, dict) or "status" not in answer:
            raise SinkError(f"{operation}: expected a map with a status, found {type(answer).__name__}")
        return answer

    def _read(self, size: int, until: float) -> bytes:
        found = bytearray()
        while len(found) < size:
            self._socket.settimeout(_left(until))
            part = self._socket.recv(size - len(found))
            if not part:
                raise SinkError("it closed the connection")
            found += part
        return bytes(found)


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise SinkError(_LATE)
    return left
