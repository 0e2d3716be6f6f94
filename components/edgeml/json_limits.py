"""JSON from elsewhere: bounded in bytes and depth, each key once, every number finite, all text real Unicode.

Python's own reader takes what others refuse: NaN, a thousand-digit number, keys that occur twice, half a surrogate
pair, and nesting that ends in a RecursionError.
"""

import json
import math
from typing import Any

from edgeml.errors import JsonError

MAX_BYTES, MAX_DEPTH = 1 << 20, 64
MAX_DIGITS = 308  # of an integer: more than that is no finite float
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def loads(data: bytes | str, what: str = "JSON", *, max_bytes: int = MAX_BYTES, max_depth: int = MAX_DEPTH) -> Any:
    """The value in `data`, UTF-8 with or without a byte order mark. Raises JsonError, which names it `what`."""
    try:
        encoded = data.encode() if isinstance(data, str) else data
        if len(encoded) > max_bytes:
            raise JsonError(f"{what}: {len(encoded)} bytes, {max_bytes} are allowed")
        if too_deep(encoded, max_depth):
            raise JsonError(f"{what}: nested more than {max_depth} deep")
        text = encoded.decode("utf-8-sig")
        found = json.loads(
            text, object_pairs_hook=_unique, parse_constant=_finite, parse_float=_finite, parse_int=_integer
        )
        if "\\u" in text:  # the only way to half a surrogate pair, which cannot be encoded again
            json.dumps(found, ensure_ascii=False).encode()
    except JsonError as error:
        raise error if str(error).startswith(what) else JsonError(f"{what}: {error}") from error
    except ValueError as error:
        raise JsonError(f"{what}: {error}") from error
    except RecursionError as error:  # the stack was nearly full before we began
        raise JsonError(f"{what}: nested too deeply") from error
    return found


def too_deep(data: bytes, max_depth: int = MAX_DEPTH) -> bool:
    """Whether brackets nest deeper than `max_depth`, in linear time and without recursion; text is passed over."""
    if data.count(b"[") + data.count(b"{") <= max_depth:
        return False
    parts = data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
    depth = 0
    for bracket in b"".join(parts[::2]).translate(None, _NO_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > max_depth:
            return True
    return False


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1) if len(keys) < 1000 else "of many"
        raise JsonError(f"key {twice[:40]!r} occurs twice")
    return found


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise JsonError(f"{text[:40]} is no finite number")
    return number


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise JsonError(f"a number of {len(text)} digits, {MAX_DIGITS} are allowed")
    return int(text)
