"""What others ask of a camera by message is not trusted: what they say is read, held against limits, or refused."""

import re

import msgspec

from edgeml import messages
from edgeml.errors import RefusedError
from edgeml.messages import CameraCommand, ClipCommand, StillCommand
from edgeml.pace import Ration

MAX_KEY_BYTES = 1024  # of an object in Amazon S3
WITHIN_S = 60.0
_BELOW = r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+){0,7}"

Command = CameraCommand | ClipCommand | StillCommand


class Envelope(msgspec.Struct, frozen=True):
    """What each command has, whatever else it says."""

    command: str = ""
    request_id: str | int = ""


def command_of(payload: bytes, envelope: Envelope) -> Command:
    """The whole command. Raises msgspec.MsgspecError."""
    kinds: dict[str, type[Command]] = {"still": StillCommand, "clip": ClipCommand}
    return messages.decode(payload, kinds.get(envelope.command, CameraCommand))


def check_key(key: str, prefix: str, thing: str, suffix: str) -> None:
    """Raises RefusedError unless `key` is `<prefix>/<thing>/...<suffix>`, plain names below the thing's folder."""
    folder = f"{prefix}/{thing}/"
    rest = key.removeprefix(folder)
    if rest == key or len(key.encode(errors="replace")) > MAX_KEY_BYTES:
        raise RefusedError(f"key: expected at most {MAX_KEY_BYTES} bytes below {folder}, found {key[:100]!r}")
    if re.fullmatch(_BELOW + re.escape(suffix), rest) is None:
        raise RefusedError(f"key: expected names of letters, digits, _ and - below {folder} and {suffix} at the end")


def take(ration: Ration, what: str) -> None:
    """Raises RefusedError if there were too many of `what` lately."""
    if not ration.take():
        most, within_s = ration.most, ration.within_s
        raise RefusedError(f"{most} {what} within {within_s:g} s are the most that one camera sends")
