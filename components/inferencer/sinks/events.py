"""What happens to objects that are followed, on a local topic and wherever a pipeline sends events."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from edgeml import messages
from edgeml.errors import EdgemlError
from edgeml.fields import Name
from edgeml.files import write_atomic
from edgeml.log import kv
from edgeml.messages import Event, InferenceResult
from inferencer.clips import Clip, Clips
from inferencer.events import places
from inferencer.events.places import Line, Zone
from inferencer.events.story import Rules, Story
from inferencer.parts import Place, Sink, SinkSettings
from inferencer.sample import Outcome, Sample

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

BORDERS = {"appeared", "entered", "left", "left_zone"}
Score = Annotated[float, Meta(ge=0, le=1)]


class Events(SinkSettings, frozen=True):
    enabled: Annotated[
        bool, Meta(description="With tracking: publish what happens to objects on edgeml/event/<pipeline>")
    ] = True
    labels: Annotated[tuple[str, ...], Meta(description="Classes that are told of; all by default")] = ()
    min_scores: Annotated[
        dict[str, Score], Meta(description="By class: an object is told of once its score was so high")
    ] = {}  # noqa: RUF012  (msgspec copies it)
    min_seen: Annotated[int, Meta(ge=1, le=1000, description="Frames that an object must be seen in before")] = 3
    hysteresis: Annotated[
        float, Meta(ge=0, le=0.5, description="How far beyond a border it has left, as a fraction of the picture")
    ] = 0.01
    count_after_s: Annotated[
        float, Meta(ge=0, le=3600, description="Seconds that a changed count must hold before it is told; 0 tells none")
    ] = 2.0
    clip: Annotated[Clip | None, Meta(description="Clips that the camera is asked for")] = None
    zones: Annotated[dict[Name, Zone], Meta(description="Zones of the picture, by a name of your own")] = {}  # noqa: RUF012
    lines: Annotated[dict[Name, Line], Meta(description="Lines in the picture, by a name of your own")] = {}  # noqa: RUF012

    def check(self, path: str, thing: str) -> None:
        places.check(path, self.zones, self.lines)
        if self.clip is not None:
            self.clip.check(f"{path}.clip", thing)

    def open(self, place: Place) -> Sink | None:
        return EventsSink(self, place) if self.enabled and place.pipeline.tracking is not None else None


class EventsSink(Sink):
    """Publishes on `edgeml/event/<pipeline>` and tells `place.listeners`.

    What has begun and not ended is kept in a file: what a stop or a crash cuts off ends as `interrupted`.
    """

    def __init__(self, settings: Events, place: Place) -> None:
        rules = Rules(
            zones=settings.zones,
            lines=settings.lines,
            labels=settings.labels,
            min_scores=settings.min_scores,
            min_seen=settings.min_seen,
            hysteresis=settings.hysteresis,
            count_after_s=settings.count_after_s,
        )
        self._place, self._context, self._topic = place, place.context, messages.event(place.name)
        self._health = place.context.health.scope(f"pipelines.{place.name}")
        self._story = Story(place.name, place.context.thing_name, rules)
        self._path = place.context.work / f"pipelines.{place.name}.events"
        self._writer = place.writer()
        self._lock = threading.Lock()  # several threads may bring answers
        self._clips = Clips(settings.clip, place) if settings.clip is not None else None
        self._last_s = float("-inf")
        self._open: dict[str, Event] = {}  # what would be told if it ended now, by what has begun
        if left := _kept(self._path):
            self._writer.put(partial(self._interrupted, left))

    def put(self, sample: Sample, outcome: Outcome, result: InferenceResult) -> None:
        step = outcome.step
        if step is None:
            return
        height, width = sample.image.shape[:2]
        with self._lock:
            late = step.now_s <= self._last_s  # another thread was faster: who ended has ended all the same
            self._last_s = max(step.now_s, self._last_s)
            found = [] if late else outcome.detections()
            step = replace(step, tracks=[]) if late else step
            events = self._story.next(step, found, (width, height), sample.source)
            if not events:
                return
            if self._clips is not None:
                events = [self._clips.of(event) for event in events]
            before = self._open
            if any(event.event in BORDERS for event in events):
                self._open = {event.begun: event for event in self._story.open()}
            told = [messages.encode(event) for event in events]
            self._writer.put(partial(self._store, told, before, self._open))
        self._publish(told)

    def close(self) -> None:
        """What has not ended is interrupted."""
        with self._lock:
            if self._open:
                self._interrupted(self._story.open())
                self._open = {}

    def _store(self, told: list[bytes], before: Mapping[str, Event], after: Mapping[str, Event]) -> None:
        """Tell the listeners, so that a crash at any moment loses no end of what was told to have begun."""
        if after.keys() - before.keys():
            self._keep({**before, **after}.values())
        self._tell(told)
        if before.keys() - after.keys():
            self._keep(after.values())

    def _interrupted(self, events: list[Event]) -> None:
        told = [messages.encode(event) for event in events]
        self._publish(told)
        self._tell(told)
        self._keep([])

    def _publish(self, told: Iterable[bytes]) -> None:
        for event in told:
            self._health.count("events")
            try:
                self._context.ipc.publish(self._topic, event, wait=0)
            except EdgemlError as error:
                self._health.count("not_sent")
                self._health.error(f"{self._topic}: {error}")

    def _tell(self, told: Iterable[bytes]) -> None:
        for event in told:
            for listener in self._place.listeners:
                listener(event)

    def _keep(self, events: Iterable[Event]) -> None:
        try:
            write_atomic(self._path, messages.encode(list(events)), 0o600)
        except OSError as error:
            self._health.error(f"{self._path}: {error}")


def _kept(path: Path) -> list[Event]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Event])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.MsgspecError, RecursionError) as error:
        log.warning("open events are forgotten %s", kv(file=path, error=error))
        return []
