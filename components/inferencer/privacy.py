"""Which regions of a frame nobody is to see."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from edgeml.messages import Hidden, Method, Region
from inferencer.parts import Around, DetectionSettings, Model
from inferencer.sample import MAX_BOXES, Outcome, Sample

if TYPE_CHECKING:
    from inferencer.parts import Place

MAX_HELD = 100  # regions of frames before; further ones become one
SAME = 0.3  # overlap from which on a region is taken for one of a frame before


class Privacy(DetectionSettings, frozen=True):
    # (A docstring would become the schema's description.)
    labels: Annotated[
        tuple[Annotated[str, Meta(max_length=64)], ...],
        Meta(max_length=32, description="Classes that are made unrecognisable in pictures; all by default"),
    ] = ()
    method: Annotated[Method, Meta(description="Leave a few colours, smooth or in squares, or nothing (`box`)")] = (
        "blur"
    )
    margin: Annotated[
        float, Meta(ge=0, le=2, description="Hidden beyond the box on each side, as a fraction of it")
    ] = 0.2
    low_score: Annotated[
        float, Meta(ge=0, le=1, description="Detections from here on are hidden, those below the threshold too")
    ] = 0.1
    hold_s: Annotated[
        float,
        Meta(ge=0, le=60, description="Seconds for which a place stays hidden where nothing is detected any more"),
    ] = 1.0

    @property
    def lowest(self) -> float:
        return self.low_score

    @property
    def named(self) -> tuple[str, ...]:
        return self.labels

    def around(self, model: Model, place: Place) -> Model:
        return Private(model, self, place)


class Private(Around):
    """Asks `model`, and says what of the sample must not be seen. An answer without boxes hides all of it."""

    def __init__(self, model: Model, settings: Privacy, place: Place) -> None:
        tracking = place.pipeline.tracking
        self._model, self._settings = model, settings
        self._followed_from = 1.0 if tracking is None else tracking.lowest
        self._lock = threading.Lock()  # several threads may ask
        self._held: list[tuple[float, Region]] = []  # when each was last seen, monotonic

    def infer(self, sample: Sample) -> Outcome | None:
        from edgeml.privacy import around, few

        outcome = self._model.infer(sample)
        if outcome is None or getattr(sample.data, "ndim", 0) < 2:
            return outcome
        settings, (height, width) = self._settings, sample.image.shape[:2]
        found, all_of_it = outcome.detections(), (0, 0, width, height)
        if outcome.task != "detection":
            outcome.hidden = Hidden(settings.method, (all_of_it,))
            return outcome
        regions = [
            around(one.box, settings.margin, (width, height))
            for one in found
            if not settings.labels or one.label in settings.labels
        ]
        with self._lock:
            regions += self._missed(regions, sample.arrived_ns / 1e9)
        if len(found) >= MAX_BOXES:  # more were seen than are told of
            regions = [all_of_it]
        outcome.hidden = Hidden(settings.method, few(each for each in regions if each[2] and each[3]))
        least = min(self._followed_from, outcome.threshold)
        outcome.results = [one for one in found if one.score >= least]
        return outcome

    def _missed(self, regions: list[Region], now_s: float) -> list[Region]:
        """Where something was seen a moment ago and nothing is now: who is missed in one frame is still there."""
        from edgeml.privacy import few, union

        missed = [
            (seen_s, before)
            for seen_s, before in self._held
            if abs(now_s - seen_s) <= self._settings.hold_s
            and (seen_s > now_s or not any(_overlap(before, each) >= SAME for each in regions))
        ]
        self._held = [(now_s, each) for each in few(regions)] + missed
        if len(self._held) > MAX_HELD:  # nobody is forgotten for there being many
            rest = self._held[MAX_HELD - 1 :]
            newest_s = max(seen_s for seen_s, _ in rest)
            self._held[MAX_HELD - 1 :] = [(newest_s, union([region for _, region in rest]))]
        return [region for _, region in missed]


def _overlap(one: Region, other: Region) -> float:
    """Intersection over union."""
    wide = min(one[0] + one[2], other[0] + other[2]) - max(one[0], other[0])
    high = min(one[1] + one[3], other[1] + other[3]) - max(one[1], other[1])
    inner = max(0, wide) * max(0, high)
    return inner / max(1, one[2] * one[3] + other[2] * other[3] - inner)
