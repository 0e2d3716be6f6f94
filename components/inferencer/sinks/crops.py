"""Crops of what was detected, to Amazon S3."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from edgeml.errors import SpoolError
from edgeml.fields import BucketOrNone, KeyPrefix, check_key
from edgeml.messages import InferenceResult
from edgeml.s3 import literal
from inferencer import shots
from inferencer.cropping import cut, fractions
from inferencer.parts import Place, Sink, SinkSettings
from inferencer.sample import Array, Outcome, Sample
from inferencer.stills import Stills, Wanted

if TYPE_CHECKING:
    from edgeml.component import Context
    from edgeml.messages import Detection
    from edgeml.s3 import Uploader
    from inferencer.parts import Topics
    from inferencer.tracks import Step, Track
    from inferencer.writer import Writer

Write = tuple[Callable[[], None], int]  # and how many bytes of pictures it holds
Box = tuple[float, float, float, float]

BETTER = 1.05  # times as good is a picture that is kept in place of another one
CLEARLY = 1.3  # ... and one that is sent after another one
MAX_HELD = 64 << 20  # bytes of best pictures that wait; beyond, the oldest is sent early
CROP_TIME = "%Y/%m/%d/%H%M%S%f"
LONGEST = "2000/01/01/000000000000-" + "0" * 80 + ".jpg"  # with a pipeline's name, and numbers


class Crops(SinkSettings, frozen=True):
    bucket: Annotated[
        BucketOrNone, Meta(description="S3 bucket for crops of what was detected; empty uploads nothing")
    ] = ""
    prefix: Annotated[KeyPrefix, Meta(description="Keys are <prefix>/<thing>/<yyyy>/<mm>/<dd>/<id>-<n>.jpg")] = "faces"
    when: Annotated[
        Literal["every", "best"],
        Meta(description="Each Nth result, or the best picture of each object that is followed (with tracking)"),
    ] = "every"
    every: Annotated[int, Meta(ge=1, le=1_000_000, description="Crop each Nth result that is not empty")] = 1
    best_after_s: Annotated[
        float,
        Meta(
            ge=0,
            le=3600,
            description="`best`: sent after so many seconds, or when the object is gone; 0 waits for that",
        ),
    ] = 5.0
    replace: Annotated[
        bool, Meta(description="`best`: send a clearly better one afterwards, under a key of its own")
    ] = False
    min_seen: Annotated[
        int,
        Meta(ge=1, le=1000, description="`best`: frames that an object must be seen in before it is worth a picture"),
    ] = 3
    still: Annotated[
        bool, Meta(description="`best`: ask the camera for the same in its large stream first, by the command `still`")
    ] = False
    margin: Annotated[float, Meta(ge=0, le=2, description="Added on each side, as a fraction of the box")] = 0.2
    min_pixels: Annotated[int, Meta(ge=1, le=4096, description="Boxes with a shorter side below this are left")] = 16
    quality: Annotated[int, Meta(ge=10, le=100, description="JPEG quality")] = 90

    def check(self, path: str, thing: str) -> None:
        check_key(f"{path}.prefix", self.prefix, f"{thing}/{LONGEST}")

    def open(self, place: Place) -> Sink | None:
        if not self.bucket:
            return None
        if self.when == "every":
            return CropsSink(place.name, self, place.context, place.uploader(), place.writer())
        stills = Stills(place.pipeline.source.seen, place.context) if self.still else None
        return BestSink(place.name, self, place.context, place.uploader(), place.writer(), stills)


class _Crops(Sink):
    def __init__(self, pipeline: str, settings: Crops, context: Context, uploader: Uploader, writer: Writer) -> None:
        self._pipeline, self._settings, self._context = pipeline, settings, context
        self._health = context.health.scope(f"pipelines.{pipeline}")
        self._uploader, self._writer = uploader, writer
        self._folder = literal(f"{settings.prefix}/{context.thing_name}")

    def _cut(self, sample: Sample, outcome: Outcome, found: Detection) -> Array | None:
        return cut(sample, outcome, found, self._settings.margin, self._settings.min_pixels)

    def _jpeg(self, picture: Array, name: str) -> bytes:
        import cv2

        ok, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, self._settings.quality])
        if not ok:
            raise SpoolError(f"crop {name} cannot be encoded")
        return data.tobytes()

    def _send(self, name: str, data: bytes, at: float) -> None:
        self._uploader.put(self._settings.bucket, self._key(name), data, "image/jpeg", at=at)
        self._health.count("crops")

    def _key(self, name: str) -> str:
        return f"{self._folder}/{CROP_TIME}-{name}.jpg"


class CropsSink(_Crops):
    """The detections of each Nth result that is not empty, as JPEG."""

    _found = 0

    def seen(self, sample: Sample) -> None:
        if self._found % self._settings.every == 0:
            sample.hold()

    def put(self, sample: Sample, outcome: Outcome, result: InferenceResult) -> None:
        if outcome.empty:
            return
        self._found += 1
        if (self._found - 1) % self._settings.every:
            return
        pictures = [self._cut(sample, outcome, found) for found in outcome.detections()]
        there = [picture for picture in pictures if picture is not None]
        if not sample.valid():  # the writer came round while we cut: these pixels may be of two frames
            self._health.count("crops_lost", len(there))
        elif there:
            self._writer.put(partial(self._store, result, there), sum(picture.nbytes for picture in there))

    def _store(self, result: InferenceResult, pictures: list[Array]) -> None:
        source = result.source  # of a frame there may be several, each a crop of another detection
        named = f"{source.frame_id}-{source.index}" if source.pipeline else f"{source.frame_id}"
        for number, picture in enumerate(pictures):
            name = f"{named}-{number}"
            self._send(name, self._jpeg(picture, name), result.source.captured_at)


@dataclass(frozen=True)
class Taken:
    """A picture that is sent: its name, the frame's time, and the place in it, in fractions."""

    name: str
    captured_at: float
    box: Box


@dataclass
class Shot:
    """The best picture of an object so far, and what was sent of it."""

    pipeline: str  # several may send to one place, and number their objects alike
    track: Track
    since_s: float  # it was seen, or a picture was sent
    quality: float = 0.0
    data: bytes = b""  # JPEG, until it is sent
    waits: bool = False  # is there one that was not sent
    number: int = 0  # of the next one that is
    captured_at: float = 0.0
    box: Box = (0.0, 0.0, 0.0, 0.0)  # of what was cut out, in fractions of the frame

    @property
    def name(self) -> str:
        return f"{self.pipeline}-{self.track.id}-{self.number}"

    def taken(self) -> Taken:
        """The picture that is sent now."""
        taken, self.waits = Taken(self.name, self.captured_at, self.box), False
        self.number += 1
        return taken


class BestSink(_Crops):
    """The best picture of each object, once: when it has been there for a while, or when it is gone."""

    def __init__(
        self,
        pipeline: str,
        settings: Crops,
        context: Context,
        uploader: Uploader,
        writer: Writer,
        stills: Stills | None = None,
    ) -> None:
        super().__init__(pipeline, settings, context, uploader, writer)
        self._shots: dict[int, Shot] = {}
        self._stills = stills
        self._lock = threading.Lock()  # of the shots; the writer takes it, so nobody waits for the writer with it
        self._order = threading.Lock()  # several threads may bring answers, and the writer is to hear of one at a time
        self._last_s = float("-inf")
        self._health.gauge("pictures_held", lambda: float(len(self._shots)))

    def topics(self) -> Topics:
        return [(topic, self._replied) for topic, _ in self._stills.topics()] if self._stills is not None else ()

    def seen(self, sample: Sample) -> None:
        sample.hold()

    def put(self, sample: Sample, outcome: Outcome, result: InferenceResult) -> None:
        if outcome.step is None:
            return
        with self._order:
            for write, size in self._writes(sample, outcome, outcome.step):
                self._writer.put(write, size)
        self._send_missing()

    def _replied(self, topic: str, payload: bytes) -> None:
        if self._stills is not None:
            self._stills.replied(topic, payload)
            if not self._writer.full:  # whoever brings messages waits for no disk: the next result does
                self._send_missing()  # there may be none any more that would bring it along

    def _send_missing(self) -> None:
        for wanted in self._stills.missing() if self._stills is not None else ():
            self._writer.put(partial(self._send, wanted.name, wanted.data, wanted.at))

    def close(self) -> None:
        """Send what is held: nobody looks at these objects any more."""
        with self._lock:
            writes = [write for shot in self._shots.values() for write in self._ended(shot)]
            self._shots = {}
        for write, _ in writes:
            write()
        for wanted in self._stills.missing(at_the_end=True) if self._stills is not None else ():
            self._send(wanted.name, wanted.data, wanted.at)

    def _writes(self, sample: Sample, outcome: Outcome, step: Step) -> list[Write]:
        with self._lock:
            late, self._last_s = step.now_s <= self._last_s, max(step.now_s, self._last_s)
            ended = [self._shots.pop(track.id, None) for track in step.ended]
            writes = [write for shot in ended if shot is not None for write in self._ended(shot)]
            if late:
                return writes
            for track, found in zip(step.tracks, outcome.detections(), strict=True):
                if track is not None:
                    shot = self._shots.setdefault(track.id, Shot(self._pipeline, track, step.now_s))
                    writes += self._seen(shot, found, sample, outcome, step.now_s)
            return writes

    def _seen(self, shot: Shot, found: Detection, sample: Sample, outcome: Outcome, now_s: float) -> list[Write]:
        writes: list[Write] = []
        if not shot.number or self._settings.replace:
            picture = self._better(shot, found, sample, outcome)
            writes += [] if picture is None else [(partial(self._keep, shot, picture), picture.nbytes)]
        after_s, old = self._settings.best_after_s, shot.track.hits >= self._settings.min_seen
        if shot.waits and old and after_s and now_s - shot.since_s >= after_s:
            shot.since_s = now_s
            writes.append((partial(self._sent, shot, shot.taken()), 0))
        return writes

    def _ended(self, shot: Shot) -> list[Write]:
        worth = shot.waits and shot.track.hits >= self._settings.min_seen
        return [(partial(self._sent, shot, shot.taken()), 0)] if worth else []

    def _better(self, shot: Shot, found: Detection, sample: Sample, outcome: Outcome) -> Array | None:
        """This picture, if it is better than the one before. Sharpness, which takes longest, is asked last."""
        least = shot.quality * (CLEARLY if shot.number and not shot.waits else BETTER)
        height, width = sample.image.shape[:2]
        value = shots.quality(found, (width, height))
        if value <= least or (value := value * shots.sharpness(sample.image, found.box)) <= least:
            return None
        picture = self._cut(sample, outcome, found)
        if picture is None:
            return None
        if not sample.valid():  # as above
            self._health.count("crops_lost")
            return None
        shot.quality, shot.waits = value, True
        shot.captured_at, shot.box = sample.source.captured_at, fractions(found, self._settings.margin, width, height)
        shot.track.picture = self._uploader.key(self._key(shot.name), shot.track.since)
        return picture

    def _keep(self, shot: Shot, picture: Array) -> None:
        shot.data = self._jpeg(picture, shot.name)
        with self._lock:
            held = [each for each in self._shots.values() if each.data and each.waits]
            early = held[0] if held and sum(len(each.data) for each in held) > MAX_HELD else None
            taken = early.taken() if early is not None else None
        if early is not None and taken is not None:
            self._sent(early, taken)

    def _sent(self, shot: Shot, taken: Taken) -> None:
        data, shot.data = shot.data, b""
        if not data:
            return
        at = shot.track.since
        key = self._uploader.key(self._key(taken.name), at) if self._stills is not None else ""
        wanted = Wanted(taken.name, key, data, at, taken.captured_at, taken.box)
        if self._stills is None or not key or not self._stills.ask(wanted):
            self._send(taken.name, data, at)
