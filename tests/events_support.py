"""A yard, whoever walks through it, and the sinks that are told."""

import json
from collections.abc import Callable
from typing import Any

from edgeml.component import Context
from edgeml.messages import (
    Detection,
    InferenceResult,
    LatencyMs,
    ModelRef,
    SampleRef,
)
from inferencer.backends.onnx import OnnxBackend
from inferencer.events.places import Zone
from inferencer.parts import Place
from inferencer.sample import Outcome, Sample, Timer
from inferencer.sources.camera import CameraSource
from inferencer.tracking import Tracking
from inferencer_support import picture, pipeline, place

SIZE = (1000, 500)
YARD = Zone(points=((0.4, 0.2), (0.6, 0.2), (0.6, 1.0), (0.4, 1.0)))


def box(x: float, y: float, label: str = "person", score: float = 0.9) -> Detection:
    """40 x 100 pixels; its foot is at x, y in fractions of the picture."""
    return Detection(label, score, (x * SIZE[0] - 20, y * SIZE[1] - 100, 40, 100))


class Direct:
    """A writer that writes at once."""

    def put(self, write: Callable[[], None]) -> None:
        write()


class Outbox:
    def __init__(self) -> None:
        self.sent: list[Any] = []

    def put(self, topic: str, payload: bytes, *, qos: int | None = None) -> None:
        self.sent.append(json.loads(payload))


def placed(context: Context, outbox: Outbox, **fields: Any) -> Place:
    configured = pipeline(OnnxBackend(model="M"), CameraSource(camera="c"), tracking=Tracking(), **fields)
    return place(context, configured, outbox=outbox, writer=Direct)


def frame(at: float) -> Sample:
    return Sample(picture(size=(500, 1000)), SampleRef(camera="c", captured_at=1e9 + at), int(at * 1e9), "bgr24")


def outcome_of(results: Any, **fields: Any) -> Outcome:
    return Outcome("detection", ModelRef("m", "1"), results, Timer(), **fields)


def result_of(results: Any, number: int = 0) -> InferenceResult:
    return InferenceResult(
        pipeline="p", model=ModelRef("m", "1"), source=SampleRef(camera="c", frame_id=number), task="detection",
        results=results, latency_ms=LatencyMs(queue=0, preprocess=0, inference=0, postprocess=0), device="bench",
    )  # fmt: skip
