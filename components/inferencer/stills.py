"""Pictures out of the large stream of a camera that has two, asked of the camera itself."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from edgeml import messages
from edgeml.errors import EdgemlError
from edgeml.log import kv
from edgeml.messages import CameraReply, StillCommand

if TYPE_CHECKING:
    from edgeml.component import Context
    from inferencer.parts import Topics

log = logging.getLogger(__name__)

WAIT_S = 5.0  # for a camera's answer
MOST = 32  # that are waited for


@dataclass(frozen=True)
class Wanted:
    """A picture, and what is sent in its place if the camera has no better one. `box` is in fractions of the frame."""

    name: str
    key: str
    data: bytes
    at: float
    captured_at: float
    box: tuple[float, float, float, float]


class Stills:
    """Asks a camera, and says which pictures it did not send: `missing`. Thread-safe."""

    def __init__(self, camera: str, context: Context) -> None:
        self._camera, self._context = camera, context
        self._lock = threading.Lock()
        self._waiting: dict[str, tuple[float, Wanted]] = {}  # by request; until when, monotonic

    def topics(self) -> Topics:
        return [(messages.camera_reply(self._camera), self.replied)]

    def ask(self, wanted: Wanted) -> bool:
        """Whether the camera was asked."""
        with self._lock:
            if len(self._waiting) >= MOST:
                return False
            self._waiting[wanted.name] = time.monotonic() + WAIT_S, wanted
        command = StillCommand(captured_at=wanted.captured_at, box=wanted.box, key=wanted.key, request_id=wanted.name)
        try:
            self._context.ipc.publish(messages.camera_command(self._camera), messages.encode(command), wait=0)
        except EdgemlError as error:
            self._context.health.error(f"still of {self._camera}: {error}")
            with self._lock:
                self._waiting.pop(wanted.name, None)
            return False
        return True

    def replied(self, topic: str, payload: bytes) -> None:
        """Handler of the camera's replies, to whomever."""
        try:
            reply = messages.decode(payload, CameraReply)
        except msgspec.MsgspecError as error:
            log.warning("not a camera's reply %s", kv(topic=topic, error=error))
            return
        with self._lock:
            if (found := self._waiting.pop(reply.request_id, None)) is not None and not reply.ok:
                self._waiting[reply.request_id] = 0.0, found[1]

    def missing(self, *, at_the_end: bool = False) -> list[Wanted]:
        """What the camera refused, or has not sent in time; at the end all that it has not sent yet."""
        with self._lock:
            now = float("inf") if at_the_end else time.monotonic()
            late = [name for name, (until, _) in self._waiting.items() if until <= now]
            return [self._waiting.pop(name)[1] for name in late]
