"""From tracks to events: each told once, however boxes tremble."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeml.messages import Event
from inferencer.events.places import Line, Point, Zone, position

if TYPE_CHECKING:
    from edgeml.messages import Detection, SampleRef
    from inferencer.tracks import Step, Track

MAX_HELD = 100  # events of an object that is not told of yet
TREMBLES = 4.0  # times an object's own jitter that it must be beyond a border to have left


@dataclass(frozen=True)
class Rules:
    """What is told. See inferencer.sinks.events.Events."""

    zones: Mapping[str, Zone]
    lines: Mapping[str, Line]
    labels: tuple[str, ...] = ()
    min_scores: Mapping[str, float] = field(default_factory=dict)
    min_seen: int = 3
    hysteresis: float = 0.01
    count_after_s: float = 2.0


@dataclass
class Stay:
    """Of an object in a zone."""

    begun: str
    since_s: float
    dwelled: bool = False


@dataclass
class Life:
    """What was told of a track. Events wait in `held` until it has lived long enough to be told of."""

    track: Track
    start: Point
    begun: str = ""
    told: bool = False
    number: int = 0
    since_s: float = 0.0
    score: float = 0.0
    stopped: bool = False
    stays: dict[str, Stay] = field(default_factory=dict)
    sides: dict[str, tuple[float, Point]] = field(default_factory=dict)  # of each line, where it was clearly last
    held: deque[Event] = field(default_factory=lambda: deque(maxlen=MAX_HELD))
    latest: dict[str, Any] = field(default_factory=dict)  # where it was seen last, as events say it


@dataclass
class Count:
    told: int = 0
    now: int = 0
    since_s: float = 0.0


class Story:
    """Of one pipeline. Frames are told in the order of their capture."""

    def __init__(self, pipeline: str, device: str, rules: Rules) -> None:
        self._rules, self._pipeline, self._device = rules, pipeline, device
        self._lives: dict[int, Life] = {}
        self._counts = {zone: Count() for zone in ("", *rules.zones)}

    def next(self, step: Step, found: list[Detection], size: tuple[int, int], source: SampleRef) -> list[Event]:
        """What a frame of `size` (width, height) pixels brings."""
        events = [event for track in step.ended for event in self._ended(track)]
        for track, one in zip(step.tracks, found, strict=True):
            if track is not None:
                events += self._seen(track, one, step, size, source)
        return events + list(self._counted(step, source))

    def open(self) -> list[Event]:
        """The events that begin what has not ended."""
        return [
            self._event("interrupted", life, life.track.seen, begun=begun, zone=zone)
            for life in self._lives.values()
            if life.told
            for zone, begun in [*((zone, stay.begun) for zone, stay in life.stays.items()), ("", life.begun)]
        ]

    def _seen(self, track: Track, one: Detection, step: Step, size: tuple[int, int], source: SampleRef) -> list[Event]:
        life = self._lives.get(track.id)
        if life is None:
            life = self._lives[track.id] = Life(track, _rounded(position(one, size, "foot")), since_s=step.now_s)
        life.score = max(life.score, one.score)
        life.latest = {"position": _rounded(position(one, size, "foot")), "box": one.box, "source": source}
        slack = max(self._rules.hysteresis, TREMBLES * track.jitter / min(size))
        events = list(self._zones(life, one, step, size, slack)) + list(self._lines(life, one, step, size, slack))
        if track.stationary != life.stopped:
            life.stopped = track.stationary
            events += [self._event("stopped", life, step.at)] if life.stopped else []
        if life.told:
            return events
        life.held += events
        if not self._worth(life):
            return []
        appeared = self._event("appeared", life, step.at)
        life.told, life.begun = True, appeared.id
        events = [appeared, *life.held]
        life.held.clear()
        return events

    def _worth(self, life: Life) -> bool:
        rules, label = self._rules, life.track.label
        enough = life.track.hits >= rules.min_seen and life.score >= rules.min_scores.get(label, 0.0)
        return enough and (not rules.labels or label in rules.labels)

    def _zones(self, life: Life, one: Detection, step: Step, size: tuple[int, int], slack: float) -> Iterator[Event]:
        for name, zone in self._rules.zones.items():
            depth, stay = zone.depth(position(one, size, zone.where)), life.stays.get(name)
            if stay is None and depth > 0 and zone.concerns(life.track.label, life.score):
                event = self._event("entered", life, step.at, zone=name)
                life.stays[name] = Stay(event.id, step.now_s)
                yield event
            elif stay is not None and depth < -slack:
                yield self._left_zone(life, name, life.stays.pop(name), step.at, step.now_s)
            elif stay is not None and not stay.dwelled and 0 < zone.dwell_s <= step.now_s - stay.since_s:
                stay.dwelled = True
                seconds = round(step.now_s - stay.since_s, 3)
                yield self._event("dwelled", life, step.at, zone=name, seconds=seconds, begun=stay.begun)

    def _lines(self, life: Life, one: Detection, step: Step, size: tuple[int, int], slack: float) -> Iterator[Event]:
        for name, line in self._rules.lines.items():
            now = position(one, size, line.where)
            side, (before, there) = line.side(now), life.sides.get(name, (0.0, now))
            if abs(side) <= (slack if before else 0.0):
                continue  # too near to say: where it was clearly last is what counts
            life.sides[name] = side, now
            if before * side < 0 and line.crossed(there, now) and line.concerns(life.track.label, life.score):
                yield self._event("crossed", life, step.at, line=name, direction="right" if side > 0 else "left")

    def _ended(self, track: Track) -> Iterator[Event]:
        life = self._lives.pop(track.id, None)
        if life is None or not life.told:
            return
        for name, stay in life.stays.items():
            yield self._left_zone(life, name, stay, track.seen, track.seen_s)
        seconds = round(track.seen_s - life.since_s, 3)
        yield self._event("left", life, track.seen, begun=life.begun, seconds=seconds)

    def _left_zone(self, life: Life, zone: str, stay: Stay, at: float, now_s: float) -> Event:
        seconds = round(now_s - stay.since_s, 3)
        return self._event("left_zone", life, at, zone=zone, begun=stay.begun, seconds=seconds)

    def _counted(self, step: Step, source: SampleRef) -> Iterator[Event]:
        """How many there are, once a number has held for long enough."""
        if not self._rules.count_after_s:
            return
        told = [life for life in self._lives.values() if life.told]
        for zone, count in self._counts.items():
            now = sum(1 for life in told if not zone or zone in life.stays)
            if now != count.now:
                count.now, count.since_s = now, step.now_s
            if count.now != count.told and step.now_s - count.since_s >= self._rules.count_after_s:
                count.told = now
                yield Event(
                    event="count_changed",
                    id=f"{zone or ':all'}-{round(step.at * 1000)}",
                    pipeline=self._pipeline,
                    device=self._device,
                    at=_ms(step.at),
                    zone=zone,
                    count=now,
                    source=source,
                )

    def _event(self, kind: Any, life: Life, at: float, **facts: Any) -> Event:
        life.number += 1
        track = life.track
        return Event(
            event=kind,
            id=f"{track.id}-{life.number}",
            pipeline=self._pipeline,
            device=self._device,
            at=_ms(at),
            track=track.id,
            label=track.label,
            score=round(life.score, 4),
            since=_ms(track.since),
            start=life.start,
            picture=track.picture,
            said=dict(track.said),
            **life.latest,
            **facts,
        )


def _rounded(at: Point) -> Point:
    return round(at[0], 4), round(at[1], 4)


def _ms(at: float) -> float:
    return round(at, 3)
