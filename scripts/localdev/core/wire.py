"""Frames of the AWS event-stream encoding, as the Greengrass IPC socket carries them.

    u32 total length | u32 header length | u32 CRC of both | headers | payload | u32 CRC of all before

All integers are big endian; a CRC is the CRC-32 of zlib. A header is `u8 name length, name, u8 type, value`.
Source of format and limits: awslabs/aws-c-event-stream (event_stream.h).
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Any, NamedTuple

MAX_FRAME_BYTES = 24 * 1024 * 1024
MAX_NAME_BYTES = 255
MAX_VALUE_BYTES = 32_767
MAX_HEADERS = 1_024
OVERHEAD_BYTES = 16

_PRELUDE = struct.Struct(">III")
_LENGTHS = struct.Struct(">II")
_U32 = struct.Struct(">I")
_U16 = struct.Struct(">H")
_INTEGERS = {2: struct.Struct(">b"), 3: struct.Struct(">h"), 4: struct.Struct(">i"), 5: struct.Struct(">q")}
_INTEGERS[8] = _INTEGERS[5]


class HeaderType(IntEnum):
    """Type byte of a header."""

    TRUE = 0
    FALSE = 1
    INT8 = 2
    INT16 = 3
    INT32 = 4
    INT64 = 5
    BYTES = 6
    STRING = 7
    TIMESTAMP = 8
    UUID = 9


# Plain integers: an IntEnum's members are slow to compare, and these are compared for every header.
_INT32, _BYTES, _STRING = int(HeaderType.INT32), int(HeaderType.BYTES), int(HeaderType.STRING)
_I32 = _INTEGERS[_INT32]

Header = tuple[int, Any]
"""A header's type (see HeaderType) and its value: bool, int, bytes or str."""


class FrameError(Exception):
    """Bytes that are no valid frame, or a frame that exceeds a limit."""


class Frame(NamedTuple):
    """One decoded frame. Header names are in lower case: the protocol compares them without case."""

    headers: dict[str, Header]
    payload: bytes


def encode_headers(headers: Mapping[str, Header]) -> bytes:
    """The header block. FrameError if a name, a value or their number exceeds the limits."""
    if len(headers) > MAX_HEADERS:
        raise FrameError(f"{len(headers)} headers, at most {MAX_HEADERS}")
    block = bytearray()
    for name, (kind, value) in headers.items():
        encoded_name = name.encode()
        if not 1 <= len(encoded_name) <= MAX_NAME_BYTES:
            raise FrameError(f"header name of {len(encoded_name)} bytes")
        block += bytes((len(encoded_name),)) + encoded_name + bytes((kind,)) + _encode_value(kind, value)
    return bytes(block)


def _encode_value(kind: int, value: Any) -> bytes:
    if kind in _INTEGERS:
        try:
            return _INTEGERS[kind].pack(value)
        except struct.error as error:
            raise FrameError(f"header value {value!r}: {error}") from error
    if kind in (HeaderType.STRING, HeaderType.BYTES):
        data = value.encode() if kind == HeaderType.STRING else value
        if len(data) > MAX_VALUE_BYTES:
            raise FrameError(f"header value of {len(data)} bytes, at most {MAX_VALUE_BYTES}")
        return _U16.pack(len(data)) + bytes(data)
    if kind == HeaderType.UUID and len(value) == 16:
        return bytes(value)
    if kind in (HeaderType.TRUE, HeaderType.FALSE):
        return b""
    raise FrameError(f"header type {kind} with value {value!r}")


def seal(block: bytes, payload: bytes) -> bytes:
    """The frame around an encoded header block. FrameError above the frame limit."""
    total = OVERHEAD_BYTES + len(block) + len(payload)
    if total > MAX_FRAME_BYTES:
        raise FrameError(f"frame of {total} bytes, at most {MAX_FRAME_BYTES}")
    lengths = _LENGTHS.pack(total, len(block))
    prelude = lengths + _U32.pack(zlib.crc32(lengths))
    checksum = zlib.crc32(payload, zlib.crc32(block, zlib.crc32(prelude)))
    return b"".join((prelude, block, payload, _U32.pack(checksum)))


def encode(headers: Mapping[str, Header], payload: bytes = b"") -> bytes:
    """One frame. FrameError if it exceeds a limit."""
    return seal(encode_headers(headers), payload)


def decode_headers(block: bytes) -> dict[str, Header]:
    """The headers of a block, names in lower case. FrameError if the block is malformed."""
    headers: dict[str, Header] = {}
    position, end, count = 0, len(block), 0
    try:
        while position < end:
            count += 1
            start = position + 1
            position = start + block[position]
            name = block[start:position].decode().lower()
            kind = block[position]
            position += 1
            value, position = _decode_value(kind, block, position)
            headers[name] = (kind, value)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise FrameError(f"malformed header block: {error}") from error
    if position != end or count > MAX_HEADERS:
        raise FrameError(f"malformed header block: {count} headers, {position} of {end} bytes")
    return headers


def _decode_value(kind: int, block: bytes, position: int) -> tuple[Any, int]:
    if kind == _INT32:
        return _I32.unpack_from(block, position)[0], position + 4
    if kind in (_STRING, _BYTES):
        start = position + 2
        length = (block[position] << 8) | block[position + 1]
        position = start + length
        data = block[start:position]
        if len(data) != length or length > MAX_VALUE_BYTES:
            raise FrameError(f"malformed header block: value of {length} bytes")
        return (data.decode() if kind == _STRING else data), position
    if kind in _INTEGERS:
        integer = _INTEGERS[kind]
        return integer.unpack_from(block, position)[0], position + integer.size
    if kind in (HeaderType.TRUE, HeaderType.FALSE):
        return kind == HeaderType.TRUE, position
    if kind == HeaderType.UUID:
        return block[position : position + 16], position + 16
    raise FrameError(f"malformed header block: type {kind}")


class Decoder:
    """Cuts a byte stream into frames. `limit` (bytes of a whole frame) may be changed between frames."""

    def __init__(self, limit: int = MAX_FRAME_BYTES) -> None:
        self.limit = limit
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that `data` completes. FrameError at the first that is malformed; the stream is then lost."""
        buffer = self._buffer
        buffer += data
        position, end = 0, len(buffer)
        try:
            while end - position >= 12:
                total, header_length, crc = _PRELUDE.unpack_from(buffer, position)
                if zlib.crc32(buffer[position : position + 8]) != crc:
                    raise FrameError("prelude checksum does not match")
                if total > self.limit:
                    raise FrameError(f"frame of {total} bytes, at most {self.limit}")
                if total < OVERHEAD_BYTES + header_length:
                    raise FrameError(f"frame of {total} bytes with {header_length} bytes of headers")
                if end - position < total:
                    break
                frame = bytes(buffer[position : position + total])
                position += total
                yield _decode(frame, header_length)
        finally:
            del buffer[:position]


def _decode(frame: bytes, header_length: int) -> Frame:
    if zlib.crc32(memoryview(frame)[:-4]) != _U32.unpack_from(frame, len(frame) - 4)[0]:
        raise FrameError("message checksum does not match")
    return Frame(decode_headers(frame[12 : 12 + header_length]), frame[12 + header_length : -4])
