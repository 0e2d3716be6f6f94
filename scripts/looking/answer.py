"""What a device answers, as far as it is what was agreed; recipes/schema/edgeml.Monitor.look.reply.json says it."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from looking import LookError

MAX_ANSWER_BYTES, MAX_STATE_BYTES, MAX_PICTURE_BYTES = 4096, 2 << 20, 200_000
MAX_PICTURES = 16
MAX_TEXT = 300  # characters of anything that is shown
CAMERA = re.compile(r"[A-Za-z0-9_-]{1,48}", re.ASCII)
BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
JPEG = b"\xff\xd8\xff"

Fetch = Callable[[str, str, int], bytes]  # bucket, key, the most bytes -> the object; raises LookError


@dataclass(frozen=True)
class Look:
    """`report` is always there, `state` (as /api/state) and JPEG `pictures` by camera where S3 had them."""

    thing: str
    report: dict[str, Any]
    state: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def parsed(data: bytes, most: int) -> dict[str, Any]:
    """A JSON object. Raises LookError."""
    if len(data) > most:
        raise LookError(f"the device sent {len(data)} bytes, {most} are allowed")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise LookError(f"the device sent what is no JSON: {type(error).__name__}") from error
    if not isinstance(found, dict):
        raise LookError("the device sent JSON that is no object")
    return found


def complete(thing: str, request_id: str, answer: dict[str, Any], fetch: Fetch) -> Look:
    """The answer with what lies in S3: below the prefix of this device and request alone, whatever the answer says."""
    missing = {plain(name): plain(reason) for name, reason in list(mapping(answer, "missing").items())[:64]}
    bucket, prefix = str(answer.get("bucket", "")), f"look/{thing}/{request_id}/"
    state: dict[str, Any] = {}
    pictures: dict[str, bytes] = {}
    if BUCKET.fullmatch(bucket):
        if "state.json" not in missing:
            try:
                state = parsed(fetch(bucket, f"{prefix}state.json", MAX_STATE_BYTES), MAX_STATE_BYTES)
            except LookError as error:
                missing["state.json"] = plain(error)
        for camera in list(mapping(answer, "pictures"))[:MAX_PICTURES]:
            if not CAMERA.fullmatch(camera):
                continue
            try:
                picture = fetch(bucket, f"{prefix}{camera}.jpg", MAX_PICTURE_BYTES)
            except LookError as error:
                missing[camera] = plain(error)
                continue
            if picture.startswith(JPEG):
                pictures[camera] = picture
            else:
                missing[camera] = "what lies there is no JPEG"
    return Look(thing, mapping(answer, "report"), state, pictures, missing)


def mapping(holder: dict[str, Any], key: str) -> dict[str, Any]:
    found = holder.get(key)
    return found if isinstance(found, dict) else {}


def entries(holder: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The objects in a list."""
    found = holder.get(key)
    return [item for item in found if isinstance(item, dict)][:256] if isinstance(found, list) else []


def plain(value: object) -> str:
    """One line of text without what a terminal would obey."""
    if isinstance(value, float):
        return f"{value:g}"
    return "".join(c if c.isprintable() else "?" for c in str(value)[:MAX_TEXT])
