"""Where results go: local topics, AWS IoT Core, crops to S3. One thread per pipeline, so that a disk's pace is not
the pipeline's."""

import contextlib
import logging
import queue
from collections.abc import Mapping

import cv2
import msgspec

from edgeml import messages
from edgeml.component import Context
from edgeml.errors import EdgemlError, SpoolError
from edgeml.fields import check_key, check_topic
from edgeml.log import kv
from edgeml.messages import MAX_IPC_BYTES, InferenceResult
from edgeml.outbox import Outbox
from edgeml.pace import Throttle
from edgeml.s3 import Uploader, literal
from inferencer.config import Crops, IotCore, Local, Pipeline
from inferencer.sample import Array, Outcome, Sample
from inferencer.telemetry import telemetry_topic

log = logging.getLogger(__name__)

# Times in what goes to IoT Core, results and telemetry alike, in seconds.
TIMES = {"source.captured_at": 1, "ts": 1, "data.ts": 1}
CROP_TIME = "%Y/%m/%d/%H%M%S%f"
QUEUE = 64  # results on their way to disk, per pipeline


def check_places(pipelines: Mapping[str, Pipeline], thing: str) -> None:
    """Raises ConfigError for topics and keys that can never work once the thing's name is in them."""
    longest = "2000/01/01/000000000000-" + "0" * 32 + ".jpg"
    for name, pipeline in pipelines.items():
        check_topic(f"pipelines.{name}.iot_core.topic", pipeline.iot_core.topic)
        check_topic(f"pipelines.{name}.telemetry.topic", telemetry_topic(pipeline.telemetry, thing))
        check_key(f"pipelines.{name}.crops.prefix", pipeline.crops.prefix, f"{thing}/{longest}")


class LocalSink:
    """Publishes results on `edgeml/inference/<pipeline>`."""

    def __init__(self, pipeline: str, settings: Local, context: Context) -> None:
        self._topic, self._settings, self._context = messages.inference(pipeline), settings, context

    def put(self, sample: Sample, outcome: Outcome, result: InferenceResult) -> None:
        if self._settings.empty or not outcome.empty:
            self._context.ipc.publish(self._topic, fitted(result, MAX_IPC_BYTES), wait=0)

    def close(self) -> None:
        return


class ReplySink:
    """Answers the request that a sample came from."""

    def put(self, sample: Sample, outcome: Outcome, result: InferenceResult) -> None:
        if sample.reply is not None:
            sample.reply(result)

    def close(self) -> None:
        return


class Stored:
    """Results and crops that go through a spool, written by a thread of their own."""

    def __init__(
        self,
        pipeline: str,
        iot_core: IotCore,
        crops: Crops,
        context: Context,
        outbox: Outbox,
        uploader: Uploader | None,
    ) -> None:
        self._pipeline, self._iot, self._crops = pipeline, iot_core, crops
        self._context, self._outbox, self._uploader = context, outbox, uploader
        self._found, self._failures = 0, Throttle()
        self._queue: queue.Queue[tuple[InferenceResult, list[Array]] | None] = queue.Queue(QUEUE)
        context.health.gauge(f"pipelines.{pipeline}.store_queue", lambda: float(self._queue.qsize()))
        self._thread = context.spawn(f"store-{pipeline}", self._run)

    def put(self, sample: Sample, outcome: Outcome, result: InferenceResult) -> None:
        if outcome.empty:
            return
        self._found += 1
        wants_message = self._iot.enabled and (self._found - 1) % self._iot.every == 0
        wants_crops = self._uploader is not None and bool(self._crops.bucket)
        pictures: list[Array] = []
        if wants_crops and (self._found - 1) % self._crops.every == 0:
            pictures = cut(sample, outcome, self._crops)
            if not sample.valid():  # the writer came round while we cut: these pixels may be of two frames
                self._context.health.count(f"pipelines.{self._pipeline}.crops_lost", len(pictures))
                pictures = []
        if wants_message or pictures:
            kept = result if wants_message else msgspec.structs.replace(result, results=[])
            # Waits when the disk cannot keep up: the pipeline slows down instead of losing results.
            self._queue.put((kept, pictures))

    def close(self) -> None:
        with contextlib.suppress(queue.Full):  # the disk hangs, and the thread does not keep the process alive
            self._queue.put(None, timeout=0.5)
        self._thread.join(timeout=0.5)

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            result, pictures = item
            try:
                self._store(result, pictures)
            except Exception as error:
                self._context.health.count(f"pipelines.{self._pipeline}.not_stored")
                self._context.health.error(error)
                if self._failures.due():
                    unexpected = None if isinstance(error, EdgemlError) else error
                    facts = kv(pipeline=self._pipeline, error=error, count=self._failures.count)
                    log.error("result not stored %s", facts, exc_info=unexpected)

    def _store(self, result: InferenceResult, pictures: list[Array]) -> None:
        if result.results:
            self._outbox.send(self._iot.topic, fitted(result, MAX_IPC_BYTES), qos=self._iot.qos)
        folder = literal(f"{self._crops.prefix}/{self._context.thing_name}")
        name = f"{result.source.frame_id}"
        for number, picture in enumerate(pictures):
            ok, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, self._crops.quality])
            if not ok or self._uploader is None:
                raise SpoolError(f"crop {name}-{number} cannot be encoded")
            key = f"{folder}/{CROP_TIME}-{name}-{number}.jpg"
            self._uploader.put(self._crops.bucket, key, data.tobytes(), "image/jpeg", at=result.source.captured_at)
            self._context.health.count(f"pipelines.{self._pipeline}.crops")


def cut(sample: Sample, outcome: Outcome, settings: Crops) -> list[Array]:
    """A copy of each detection's pixels with its margin, in BGR or grey, clipped to the image."""
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
        if part.size:
            pictures.append(cv2.cvtColor(part, cv2.COLOR_RGB2BGR) if sample.pixel_format == "rgb24" else part.copy())
    return pictures


def fitted(result: InferenceResult, limit: int) -> bytes:
    """JSON of `result` in at most `limit` bytes: the least sure results of a list go first, and how many is told."""
    data = messages.encode(result)
    kept = result.results
    while len(data) > limit and isinstance(kept, list) and kept:
        kept = kept[: min(len(kept) - 1, len(kept) * limit // len(data))]
        data = messages.encode(msgspec.structs.replace(result, results=kept, truncated=len(result.results) - len(kept)))
    return data
