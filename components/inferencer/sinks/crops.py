"""Crops of what was detected, to Amazon S3."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

from msgspec import Meta

from edgeml.errors import SpoolError
from edgeml.fields import BucketOrNone, KeyPrefix, check_key
from edgeml.messages import InferenceResult
from edgeml.s3 import literal
from inferencer.parts import Place, Sink, SinkSettings
from inferencer.sample import Array, Outcome, Sample

if TYPE_CHECKING:
    from edgeml.component import Context
    from edgeml.s3 import Uploader
    from inferencer.writer import Writer

CROP_TIME = "%Y/%m/%d/%H%M%S%f"
LONGEST = "2000/01/01/000000000000-" + "0" * 32 + ".jpg"


class Crops(SinkSettings, frozen=True):
    bucket: Annotated[
        BucketOrNone, Meta(description="S3 bucket for crops of what was detected; empty uploads nothing")
    ] = ""
    prefix: Annotated[KeyPrefix, Meta(description="Keys are <prefix>/<thing>/<yyyy>/<mm>/<dd>/<id>-<n>.jpg")] = "faces"
    every: Annotated[int, Meta(ge=1, le=1_000_000, description="Crop each Nth result that is not empty")] = 1
    margin: Annotated[float, Meta(ge=0, le=2, description="Added on each side, as a fraction of the box")] = 0.2
    min_pixels: Annotated[int, Meta(ge=1, le=4096, description="Boxes with a shorter side below this are left")] = 16
    quality: Annotated[int, Meta(ge=10, le=100, description="JPEG quality")] = 90

    def check(self, path: str, thing: str) -> None:
        check_key(f"{path}.prefix", self.prefix, f"{thing}/{LONGEST}")

    def open(self, place: Place) -> Sink | None:
        return CropsSink(place.name, self, place.context, place.uploader(), place.writer()) if self.bucket else None


class CropsSink(Sink):
    """The detections of each Nth result that is not empty, as JPEG."""

    def __init__(self, pipeline: str, settings: Crops, context: Context, uploader: Uploader, writer: Writer) -> None:
        self._prefix, self._settings, self._context = f"pipelines.{pipeline}", settings, context
        self._uploader, self._writer = uploader, writer
        self._found = 0

    def put(self, sample: Sample, outcome: Outcome, result: InferenceResult) -> None:
        if outcome.empty:
            return
        self._found += 1
        if (self._found - 1) % self._settings.every:
            return
        pictures = cut(sample, outcome, self._settings)
        if not sample.valid():  # the writer came round while we cut: these pixels may be of two frames
            self._context.health.count(f"{self._prefix}.crops_lost", len(pictures))
        elif pictures:
            self._writer.put(partial(self._store, result, pictures))

    def _store(self, result: InferenceResult, pictures: list[Array]) -> None:
        import cv2

        folder = literal(f"{self._settings.prefix}/{self._context.thing_name}")
        name = f"{result.source.frame_id}"
        for number, picture in enumerate(pictures):
            ok, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, self._settings.quality])
            if not ok:
                raise SpoolError(f"crop {name}-{number} cannot be encoded")
            key = f"{folder}/{CROP_TIME}-{name}-{number}.jpg"
            self._uploader.put(self._settings.bucket, key, data.tobytes(), "image/jpeg", at=result.source.captured_at)
            self._context.health.count(f"{self._prefix}.crops")


def cut(sample: Sample, outcome: Outcome, settings: Crops) -> list[Array]:
    """A copy of each detection's pixels with its margin, in BGR or grey, clipped to the image, less what is hidden."""
    import cv2

    from edgeml.privacy import hide

    image = sample.image
    height, width = image.shape[:2]
    pictures = []
    for found in outcome.detections():
        x, y, w, h = found.box
        if min(w, h) < settings.min_pixels:
            continue
        left, top = max(0, int(x - w * settings.margin)), max(0, int(y - h * settings.margin))
        right = min(width, int(x + w * (1 + settings.margin)) + 1)
        bottom = min(height, int(y + h * (1 + settings.margin)) + 1)
        part = image[top:bottom, left:right]
        if not part.size:
            continue
        part = cv2.cvtColor(part, cv2.COLOR_RGB2BGR) if sample.pixel_format == "rgb24" else part.copy()
        if outcome.hidden is not None:
            hide(part, outcome.hidden, origin=(left, top))
        pictures.append(part)
    return pictures
