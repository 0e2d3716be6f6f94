"""Clips of what happens, asked of the camera."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from edgeml import messages
from edgeml.clock import CLOCK
from edgeml.errors import EdgemlError
from edgeml.fields import KeyPrefix, check_key
from edgeml.messages import ClipCommand
from edgeml.pace import Ration
from edgeml.s3 import dated, literal

if TYPE_CHECKING:
    from edgeml.messages import Event
    from inferencer.parts import Place

CLIP_TIME = "%Y/%m/%d/%H%M%S%f"
LONGEST = "2000/01/01/000000000000-" + "0" * 100 + ".mp4"
MOST, WITHIN_S = 6, 60.0  # clips of one pipeline: a camera's disk and network are not there for it alone


class Clip(msgspec.Struct, frozen=True, kw_only=True):
    # (A docstring would become the schema's description.)
    when: Annotated[
        tuple[Literal["appeared", "entered", "crossed", "dwelled", "stopped"], ...],
        Meta(min_length=1, description="Events that a clip is asked for"),
    ] = ("appeared",)
    before_s: Annotated[float, Meta(ge=0, le=60, description="Seconds before the event")] = 5.0
    after_s: Annotated[float, Meta(ge=0, le=60, description="Seconds after it")] = 10.0
    prefix: Annotated[
        KeyPrefix, Meta(min_length=1, description="Keys are <prefix>/<thing>/<yyyy>/<mm>/<dd>/<id>.mp4")
    ] = "clips"

    def check(self, path: str, thing: str) -> None:
        check_key(f"{path}.prefix", self.prefix, f"{thing}/{LONGEST}")


class Clips:
    """Asks a camera for clips of events, a few a minute. Called by one thread at a time."""

    def __init__(self, settings: Clip, place: Place) -> None:
        self._settings, self._context = settings, place.context
        self._health = place.context.health.scope(f"pipelines.{place.name}")
        folder = literal(f"{settings.prefix}/{place.context.thing_name}")
        self._key = f"{folder}/{CLIP_TIME}-{literal(place.name)}"
        self._ration = Ration(MOST, WITHIN_S)  # by the events' own times

    def of(self, event: Event) -> Event:
        """The event, with the key of its clip where one was asked for."""
        camera = event.source.camera if event.source is not None else ""
        if event.event not in self._settings.when or not camera or not CLOCK.believed():
            return event
        if self._ration.is_used_up(event.at):
            self._health.count("clips_left_out")
            return event
        key = dated(f"{self._key}-{event.id}.mp4", event.at)
        command = ClipCommand(
            before_s=self._settings.before_s, after_s=self._settings.after_s, key=key, request_id=event.id
        )
        try:
            self._context.ipc.publish(messages.camera_command(camera), messages.encode(command), wait=0)
        except EdgemlError as error:
            self._health.count("not_sent")
            self._context.health.error(f"clip of {camera}: {error}")
            return event
        self._ration.took(event.at)
        self._health.count("clips_asked")
        return msgspec.structs.replace(event, clip=key)
