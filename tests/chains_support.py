"""A model that looks at what another one has found."""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import helper

from edgeml.messages import Detection, Hidden, ModelRef, SampleRef
from inferencer.backends.onnx import OnnxBackend
from inferencer.sample import Outcome, Sample, Timer
from inferencer.sources.detections import DetectionSamples, DetectionsSource, Offers
from inferencer.tracking.tracker import Tracker
from inferencer_support import make_context, pipeline, place

SIZE = (320, 240)
FRAME = np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)


class Chain:
    """A source that looks at the pipeline `faces`, and what that tells it."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.tracker = Tracker(itertools.count(1).__next__, lost_s=1.0)
        self.context = make_context(folder)
        source = DetectionsSource(pipeline="faces", **settings)
        configured = pipeline(OnnxBackend(model="M"), source)
        where = place(self.context, configured, takers={})
        self.samples: Any = source.open(where)
        assert isinstance(self.samples, DetectionSamples)
        where = place(self.context, configured, takers=where.takers)
        object.__setattr__(where, "name", "faces")
        self.offers = Offers(where)

    def see(self, now_s: float, found: Sequence[Detection], *, hidden: Hidden | None = None, **fields: Any) -> None:
        step = self.tracker.update(found, 0.5, now_s, 1e9 + now_s)
        source = SampleRef(camera="c", frame_id=round(now_s * 10), captured_at=1e9 + now_s)
        told = [
            Detection(one.label, one.score, one.box, track=track.id if track else 0)
            for one, track in zip(found, step.tracks, strict=True)
        ]
        outcome = Outcome("detection", ModelRef("m", "1"), told, Timer(), step=step, hidden=hidden)
        self.offers.put(Sample(FRAME, source, int(now_s * 1e9), "rgb24", **fields), outcome, None)  # type: ignore[arg-type]

    def taken(self) -> list[Sample]:
        first = self.samples.next(0)
        return [] if first is None else [first, *self.samples.more(1000)]

    def go_on(self, times: Iterable[float], found: Sequence[Detection]) -> list[tuple[float, int]]:
        """When which track was looked at."""
        looked = []
        for now_s in times:
            self.see(float(now_s), found)
            looked += [(round(float(now_s), 1), each.source.track) for each in self.taken()]
        return looked


def at(x: float, score: float = 0.9, label: str = "face", side: float = 40) -> Detection:
    return Detection(label, score, (x, 100, side, side * 1.5))


FREE = [helper.make_node("ReduceMean", ["input", "axes"], ["scores"], keepdims=0)]
FIRST_ONLY = [  # its shapes promise a batch, and it answers each with the mean of all
    helper.make_node("ReduceMean", ["input", "axes"], ["means"], keepdims=0),
    helper.make_node("ReduceMean", ["means", "batch"], ["all"], keepdims=1),
    helper.make_node("Shape", ["means"], ["shape"]),
    helper.make_node("Expand", ["all", "shape"], ["scores"]),
]
