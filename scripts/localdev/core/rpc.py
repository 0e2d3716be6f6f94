"""Messages of the event-stream RPC protocol: what the server puts on the wire, and the errors it answers with.

Source: awslabs/aws-c-event-stream (event_stream_rpc.h) and the answers of aws-greengrass-nucleus.
"""

import functools
import json
import struct
from enum import IntEnum
from typing import Any

from localdev.core.wire import Frame, Header, HeaderType, encode, encode_headers, seal

NAMESPACE = "aws.greengrass#"
SERVICE = "GreengrassCoreIPC"
VERSION = "0.1.0"

CONNECTION_ACCEPTED = 1
TERMINATE_STREAM = 2

_I32 = struct.Struct(">i")


class MessageType(IntEnum):
    """Value of the `:message-type` header."""

    APPLICATION_MESSAGE = 0
    APPLICATION_ERROR = 1
    PING = 2
    PING_RESPONSE = 3
    CONNECT = 4
    CONNECT_ACK = 5
    PROTOCOL_ERROR = 6
    INTERNAL_ERROR = 7


class RpcError(Exception):
    """An operation's failure, as the client sees it. `code` is the error's short shape name."""

    def __init__(self, code: str, message: str, **fields: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.fields = fields


class UnreadableError(Exception):
    """A request that the nucleus cannot parse or does not know: it answers with an error outside its model."""


def service_error(message: str) -> RpcError:
    """The core cannot do it."""
    return RpcError("ServiceError", message)


def invalid_arguments(message: str) -> RpcError:
    """A request field is missing or wrong."""
    return RpcError("InvalidArgumentsError", message)


def unauthorized(message: str) -> RpcError:
    """No policy of the caller allows it."""
    return RpcError("UnauthorizedError", message)


def not_found(message: str, **fields: str) -> RpcError:
    """There is no such key, component, secret or deployment."""
    return RpcError("ResourceNotFoundError", message, **fields)


@functools.lru_cache(maxsize=256)
def _block(message_type: int, flags: int, model_type: str | None, content_type: str | None) -> bytes:
    """A header block but for the value of the stream id, its last four bytes."""
    headers: dict[str, Header] = {
        ":message-type": (HeaderType.INT32, message_type),
        ":message-flags": (HeaderType.INT32, flags),
    }
    if model_type:
        headers["service-model-type"] = (HeaderType.STRING, model_type)
    if content_type:
        headers[":content-type"] = (HeaderType.STRING, content_type)
    headers[":stream-id"] = (HeaderType.INT32, 0)
    return encode_headers(headers)[:-4]


def message(stream_id: int, shape: str, payload: bytes, flags: int = 0) -> bytes:
    """A response or an event: `shape` is its short name, `payload` JSON."""
    block = _block(MessageType.APPLICATION_MESSAGE, flags, NAMESPACE + shape, "application/json")
    return seal(block + _I32.pack(stream_id), payload)


def error(stream_id: int, failure: RpcError, *, short: bool = False) -> bytes:
    """A modelled error; it ends the stream. `short`: the body of Nucleus Lite, which lacks the modelled fields."""
    body: dict[str, Any] = {"_message": failure.message, "_errorCode": failure.code}
    if not short:
        body |= {"_service": SERVICE, "message": failure.message, **failure.fields}
    block = _block(MessageType.APPLICATION_ERROR, TERMINATE_STREAM, NAMESPACE + failure.code, "application/json")
    return seal(block + _I32.pack(stream_id), dump(body))


def internal_error(stream_id: int) -> bytes:
    """What the nucleus answers when one of its handlers failed unexpectedly."""
    block = _block(MessageType.APPLICATION_ERROR, TERMINATE_STREAM, None, "text/plain")
    return seal(block + _I32.pack(stream_id), b"InternalServerError")


def connect_ack(accepted: bool) -> bytes:
    """Answer to CONNECT."""
    return seal(_block(MessageType.CONNECT_ACK, CONNECTION_ACCEPTED if accepted else 0, None, None) + _I32.pack(0), b"")


def ping_response(ping: Frame) -> bytes:
    """Answer to PING: the same payload and the headers that are not the protocol's own."""
    headers: dict[str, Header] = {
        ":message-type": (HeaderType.INT32, MessageType.PING_RESPONSE),
        ":message-flags": (HeaderType.INT32, 0),
        ":stream-id": (HeaderType.INT32, 0),
    }
    headers |= {name: header for name, header in ping.headers.items() if not name.startswith(":")}
    return encode(headers, ping.payload)


def connection_error(message_type: MessageType, text: str) -> bytes:
    """PROTOCOL_ERROR or INTERNAL_ERROR; the connection is closed after it."""
    return seal(_block(message_type, 0, None, "application/json") + _I32.pack(0), dump({"message": text}))


def dump(body: Any) -> bytes:
    """JSON, compact."""
    return json.dumps(body, separators=(",", ":")).encode()


def parse_token(payload: bytes) -> str:
    """The authToken of a CONNECT payload; empty if there is none."""
    try:
        token = json.loads(payload)["authToken"]
    except (ValueError, KeyError, TypeError):
        return ""
    return token if isinstance(token, str) else ""


def parse_request(payload: bytes) -> dict[str, Any]:
    """The members of a request that are not null. InvalidArgumentsError if it is no JSON object."""
    try:
        body = json.loads(payload)
    except ValueError as problem:
        raise invalid_arguments(f"the request is no JSON: {problem}") from problem
    if not isinstance(body, dict):
        raise invalid_arguments("the request is no JSON object")
    return {key: value for key, value in body.items() if value is not None}
