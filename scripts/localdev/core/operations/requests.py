"""Reading the fields of a request."""

import base64
import binascii
from typing import Any

from localdev.core.rpc import invalid_arguments

Body = dict[str, Any]


def text(body: Body, field: str) -> str:
    """A required string that is not empty. InvalidArgumentsError without it."""
    value = body.get(field)
    if not isinstance(value, str) or not value:
        raise invalid_arguments(f"{field} is required")
    return value


def key_path(body: Body) -> list[str]:
    """The keyPath of a configuration request; absent means the whole configuration."""
    value = body.get("keyPath", [])
    if not isinstance(value, list):
        raise invalid_arguments("keyPath must be a list")
    return [str(key) for key in value]


def blob(value: Any, field: str) -> bytes:
    """The bytes of a base64 field. InvalidArgumentsError if it is none."""
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise invalid_arguments(f"{field} is no base64") from error
