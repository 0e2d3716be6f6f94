"""Numbers in messages and files of strangers."""

from typing import Any

from edgeml.errors import BackendError, JsonError
from edgeml.json_limits import loads
from edgeml.text import decoded
from inferencer.sample import Values
from inferencer.separated import separator_of, split

MAX_MESSAGE_BYTES = 1 << 20
_AROUND = b" \t\r\n\v\f\0"  # a NUL ends the strings of C programs


def numbers(payload: bytes) -> Values:
    """What a message or file holds: a JSON list or number, a JSON object of numbers, or separated values.

    The numbers of a list are converted by the model that uses them. Raises BackendError.
    """
    plain = payload.strip(_AROUND)
    if plain[:1] in (b"[", b"{"):
        return features_of(parsed(plain))
    if plain.isascii() and b"\0" not in plain:
        text = plain.decode("ascii")
    else:
        try:
            text = decoded(payload).strip()
        except ValueError as error:
            raise BackendError(f"expected numbers, got {payload[:40]!r}: {error}") from error
    if not text:
        raise BackendError(f"expected numbers, got {payload[:40]!r}")
    return features_of(parsed(text.encode())) if text[0] in "[{" else split(text, separator_of(text))


def parsed(payload: bytes) -> Any:
    """JSON of strangers. Raises BackendError."""
    try:
        return loads(payload, "message", max_bytes=MAX_MESSAGE_BYTES)
    except JsonError as error:
        raise BackendError(f"expected JSON, got {payload[:80]!r}: {error}") from error


def features_of(found: Any) -> Values:
    """A list, or an object's `features`, or an object of numbers. Raises BackendError."""
    if isinstance(found, dict):
        found = found.get("features", found)
    if not isinstance(found, list | dict):
        raise BackendError(f"expected a list or an object of numbers, got {type(found).__name__}")
    return found
