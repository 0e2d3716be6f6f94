"""What another pipeline has detected, cut out of its pictures: a chain of two models in one process."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from edgeml.fields import Name
from edgeml.messages import Hidden, InferenceResult
from inferencer import shots
from inferencer.parts import Place, SampleSource, Sink, SourceSettings
from inferencer.sample import Outcome, Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeml.messages import Detection
    from inferencer.tracks import Step, Track

FORGOTTEN_S, LOOK_S = 120.0, 10.0  # an object whose pipeline began anew never ends; how often that is looked for
MAX_BYTES = 32 << 20  # of crops that wait for the model, and as many of objects whose best one is looked for


class DetectionsSource(SourceSettings, frozen=True, tag="detections", tag_field="type"):
    batches: ClassVar[bool] = True

    pipeline: Annotated[Name, Meta(description="Pipeline whose detections are looked at")]
    labels: Annotated[tuple[str, ...], Meta(description="Classes that are looked at; all by default")] = ()
    min_score: Annotated[float, Meta(ge=0, le=1, description="Detections below it are left out")] = 0.0
    margin: Annotated[float, Meta(ge=0, le=2, description="Added on each side, as a fraction of the box")] = 0.0
    square: Annotated[bool, Meta(description="Widen the shorter side to the length of the longer one")] = False
    per_track: Annotated[
        Literal["every", "first", "best", "interval"],
        Meta(
            description="Each detection; of each object that is followed its first one, the best one of its first "
            "`per_track_s` seconds, or one every `per_track_s`"
        ),
    ] = "every"
    per_track_s: Annotated[float, Meta(gt=0, le=3600, description="See per_track, in seconds")] = 1.0
    join: Annotated[bool, Meta(description="Events of the object tell the newest answer, too")] = True
    queue: Annotated[int, Meta(ge=1, le=1000, description="Crops that wait; beyond that the oldest are dropped")] = 64

    @property
    def parent(self) -> str:
        return self.pipeline

    @property
    def needs_tracks(self) -> bool:
        return self.per_track != "every"

    def open(self, place: Place) -> SampleSource:
        return DetectionSamples(self, place)


@dataclass
class Asked:
    """What was done about an object."""

    first_s: float
    seen_s: float
    asked_s: float | None = None
    quality: float = 0.0
    best: Sample | None = None


class DetectionSamples(SampleSource):
    """Crops of the detections of another pipeline, which offers them by `take` on its own threads."""

    def __init__(self, settings: DetectionsSource, place: Place) -> None:
        self._settings, self._place = settings, place
        self._crops: deque[Sample] = deque()
        self._bytes = self._held = 0  # of crops that wait, and of the best ones so far
        self._arrived = threading.Condition()
        self._asked: dict[int, Asked] = {}  # by track
        self._last_s = self._looked_s = float("-inf")
        self._takers = place.takers.setdefault(settings.pipeline, [])
        self._health = place.context.health.scope(place.prefix)
        self._health.gauge("crops_waiting", lambda: float(len(self._crops)))
        self._takers.append(self.take)

    def sinks(self) -> Sequence[Sink]:
        return [Joined(self._place.name)] if self._settings.join else []

    def take(self, sample: Sample, outcome: Outcome) -> None:
        """The pipeline's answer to one of its samples. Never waits for the model."""
        with self._arrived:
            for crop in self._wanted(sample, outcome):
                self._put(crop)

    def next(self, timeout: float) -> Sample | None:
        with self._arrived:
            return self._popped() if self._arrived.wait_for(lambda: self._crops, timeout) else None

    def more(self, limit: int) -> list[Sample]:
        with self._arrived:
            return [self._popped() for _ in range(min(limit, len(self._crops)))]

    def close(self) -> None:
        self._takers.remove(self.take)

    def _popped(self) -> Sample:
        crop = self._crops.popleft()
        self._bytes -= crop.image.nbytes
        return crop

    def _put(self, crop: Sample) -> None:
        self._crops.append(crop)
        self._bytes += crop.image.nbytes
        while len(self._crops) > 1 and (len(self._crops) > self._settings.queue or self._bytes > MAX_BYTES):
            self._popped()
            self._health.count("crops_dropped", 1)
        self._arrived.notify()

    def _wanted(self, sample: Sample, outcome: Outcome) -> list[Sample]:
        found, step, settings = outcome.detections(), outcome.step, self._settings
        new = [] if step is None else self._ended(step)
        tracks: Sequence[Track | None] = [None] * len(found)
        if step is not None:
            late, self._last_s = step.now_s <= self._last_s, max(step.now_s, self._last_s)
            tracks = tracks if late else step.tracks
        for index, (one, track) in enumerate(zip(found, tracks, strict=True)):
            if one.score < settings.min_score or (settings.labels and one.label not in settings.labels):
                continue
            if settings.per_track == "every":
                crop = self._cut(sample, outcome, index, track)
            elif track is not None and step is not None:
                crop = self._of_track(sample, outcome, index, track, step.now_s)
            else:
                crop = None
            if crop is not None:
                new.append(crop)
        return new

    def _ended(self, step: Step) -> list[Sample]:
        """The best crops of objects that are gone sooner than was thought."""
        ended = [self._asked.pop(track.id, None) for track in step.ended]
        if step.now_s - self._looked_s > LOOK_S:
            self._looked_s = step.now_s
            old = [track for track, asked in self._asked.items() if step.now_s - asked.seen_s > FORGOTTEN_S]
            ended += [self._asked.pop(track) for track in old]
        return [self._taken(asked) for asked in ended if asked is not None and asked.best is not None]

    def _of_track(self, sample: Sample, outcome: Outcome, index: int, track: Track, now_s: float) -> Sample | None:
        asked = self._asked.setdefault(track.id, Asked(now_s, now_s))
        asked.seen_s = now_s
        if self._settings.per_track == "best":
            return self._best(asked, sample, outcome, index, track, now_s)
        every_s = self._settings.per_track_s if self._settings.per_track == "interval" else float("inf")
        if asked.asked_s is not None and now_s - asked.asked_s < every_s:
            return None
        crop = self._cut(sample, outcome, index, track)
        asked.asked_s = asked.asked_s if crop is None else now_s
        return crop

    def _best(
        self, asked: Asked, sample: Sample, outcome: Outcome, index: int, track: Track, now_s: float
    ) -> Sample | None:
        if asked.asked_s is not None:
            return None
        found, (height, width) = outcome.detections()[index], sample.image.shape[:2]
        value = shots.quality(found, (width, height))
        if value > asked.quality and (value := value * shots.sharpness(sample.image, found.box)) > asked.quality:
            crop = self._cut(sample, outcome, index, track)
            if crop is not None:
                self._held += crop.image.nbytes - (asked.best.image.nbytes if asked.best else 0)
                asked.quality, asked.best = value, crop
        if asked.best is None or (now_s - asked.first_s < self._settings.per_track_s and self._held <= MAX_BYTES):
            return None
        asked.asked_s = now_s
        return self._taken(asked)

    def _taken(self, asked: Asked) -> Sample:
        assert asked.best is not None  # noqa: S101  (who asks has looked)
        crop, asked.best = asked.best, None
        self._held -= crop.image.nbytes
        return crop

    def _cut(self, sample: Sample, outcome: Outcome, index: int, track: Track | None) -> Sample | None:
        """The crop as a sample of its own, in pixels of its own; None where nothing is left of it, or it is torn."""
        from edgeml.privacy import around, moved

        image, found = sample.image, outcome.detections()[index]
        box = _square(found) if self._settings.square else found.box
        left, top, width, height = around(box, self._settings.margin, (image.shape[1], image.shape[0]))
        if not width or not height:
            return None
        data = image[top : top + height, left : left + width].copy()
        if not sample.valid():  # the camera came round meanwhile: these pixels may be of two frames
            self._health.count("crops_lost", 1)
            return None
        region = left, top, width, height
        source = msgspec.structs.replace(
            sample.source, pipeline=self._settings.pipeline, index=index, track=found.track, region=region
        )
        hidden = None
        if outcome.hidden is not None:
            hidden = Hidden(outcome.hidden.method, moved(outcome.hidden.regions, region))
        return Sample(
            data=data,
            source=source,
            arrived_ns=sample.arrived_ns,
            pixel_format=sample.pixel_format,
            track=track,
            hidden=hidden,
        )


def _square(found: Detection) -> tuple[float, float, float, float]:
    x, y, width, height = found.box
    side = max(width, height)
    return x + (width - side) / 2, y + (height - side) / 2, side, side


class Offers(Sink):
    """Offers a pipeline's answers to the pipelines that look at its detections."""

    def __init__(self, place: Place) -> None:
        self._takers = place.takers.setdefault(place.name, [])

    def seen(self, sample: Sample) -> None:
        if self._takers:
            sample.hold()

    def put(self, sample: Sample, outcome: Outcome, result: InferenceResult) -> None:
        if outcome.task == "detection":
            for take in list(self._takers):
                take(sample, outcome)


class Joined(Sink):
    """Lets an object's events tell what this pipeline says of it."""

    def __init__(self, pipeline: str) -> None:
        self._pipeline = pipeline

    def put(self, sample: Sample, outcome: Outcome, result: InferenceResult) -> None:
        results = outcome.results
        if sample.track is not None and isinstance(results, list) and results:
            sample.track.said[self._pipeline] = results[0].label
