"""Images named in requests: `{"image_dir", "fname", "request_id"?}` on a local topic, answered on another."""

from __future__ import annotations

import logging
import queue
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from edgeml import messages
from edgeml.errors import BackendError, EdgemlError
from edgeml.log import kv
from edgeml.messages import Classification, Detection, InferenceResult, SampleRef
from inferencer.parts import Place, SampleSource, Sink, SourceSettings
from inferencer.results import fitted
from inferencer.sample import Array, Outcome, Sample

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeml.component import Context
    from inferencer.parts import Topics

log = logging.getLogger(__name__)

MAX_REPORT = 200  # characters of a request that go into an error
MAX_ERROR = 1000  # characters of an answer that is an error
TOGETHER_BYTES = 128 << 10  # of pictures that are answered together: to read larger ones takes longer than is saved
MAX_FILE = 1024  # bytes of a file's name in a result, as JSON; a longer one is left out


class RequestSource(SourceSettings, frozen=True, tag="request", tag_field="type"):
    batches: ClassVar[bool] = True

    topic: Annotated[
        str, Meta(min_length=1, description="Local topic of requests `{image_dir, fname, request_id?}`")
    ] = "local/inference"
    reply_topic: Annotated[str, Meta(min_length=1, description="Local topic of the answers")] = "local/result"
    result_format: Annotated[
        Literal["label", "full"], Meta(description="Answer with the top label, or with the whole InferenceResult")
    ] = "label"
    allowed_dirs: Annotated[
        tuple[str, ...], Meta(description="Folders below which requests may read, links resolved; none by default")
    ] = ()
    max_pixels: Annotated[int, Meta(ge=1, le=10**9, description="Larger images are refused unread")] = 50_000_000
    queue: Annotated[int, Meta(ge=1, le=10_000, description="Requests that wait; further ones get an error")] = 64

    def open(self, place: Place) -> SampleSource:
        return RequestSamples(self, place.context, place.prefix)


class Request(msgspec.Struct):
    image_dir: str = ""
    fname: str = ""
    request_id: str | int = ""


class LabelReply(msgspec.Struct, omit_defaults=True):
    """Answer in the format `label`: the top label, empty when nothing scored high enough."""

    label: str
    score: float = 0.0
    request_id: str = ""
    error: str = ""


class ErrorReply(msgspec.Struct):
    """Answer in the format `full` to a request that could not be answered."""

    error: str
    request_id: str = ""


class RequestSamples(SampleSource):
    """Samples of requests. Whatever is wrong with a request becomes its answer, never an end of the pipeline."""

    def __init__(self, settings: RequestSource, context: Context, prefix: str) -> None:
        self._settings, self._context = settings, context
        self._health = context.health.scope(prefix)
        self._allowed = [Path(folder).resolve() for folder in settings.allowed_dirs]
        self._queue: queue.Queue[tuple[int, Request]] = queue.Queue(settings.queue)
        self._bytes = 0  # of what was taken last
        self._health.gauge("requests_waiting", lambda: float(self._queue.qsize()))

    def topics(self) -> Topics:
        return [(self._settings.topic, self.received)]

    def sinks(self) -> Sequence[Sink]:
        return [ReplySink()]

    def received(self, topic: str, payload: bytes) -> None:
        """Handler of the request topic."""
        try:
            request = messages.decode(payload, Request)
        except msgspec.MsgspecError as error:
            self._refuse("", f"not a request: {error}: {payload[:MAX_REPORT].decode(errors='replace')}")
            return
        request.request_id = str(request.request_id)[:MAX_REPORT]
        if not request.fname:
            self._refuse(request.request_id, "not a request: fname is missing")
            return
        try:
            self._queue.put_nowait((time.monotonic_ns(), request))
        except queue.Full:
            self._refuse(request.request_id, f"{self._settings.queue} requests are waiting already")

    def next(self, timeout: float) -> Sample | None:
        self._bytes = 0
        try:
            arrived_ns, request = self._queue.get(timeout=timeout)
        except queue.Empty:
            return None
        return self._sample(arrived_ns, request)

    def more(self, limit: int) -> list[Sample]:
        """None that fails: what cannot be read is answered so, and costs the others nothing."""
        found: list[Sample] = []
        while len(found) < limit and self._bytes < TOGETHER_BYTES:
            try:
                arrived_ns, request = self._queue.get_nowait()
            except queue.Empty:
                break
            try:
                sample = self._sample(arrived_ns, request)
            except Exception as error:
                self._health.error(error)
                log.exception("request failed %s", kv(request_id=request.request_id, error=repr(error)))
                continue
            if sample is not None:
                found.append(sample)
        return found

    def _sample(self, arrived_ns: int, request: Request) -> Sample | None:
        try:
            path = self._resolved(request)
            data = self._loaded(path)
        except BackendError as error:
            self._refuse(request.request_id, str(error))
            return None
        except Exception as error:
            self._refuse(request.request_id, f"internal error: {error!r}")
            raise
        self._bytes += data.nbytes
        return Sample(
            data=data,
            source=SampleRef(topic=self._settings.topic, file=_named(path), captured_at=time.time()),
            arrived_ns=arrived_ns,
            pixel_format="bgr24" if data.ndim > 1 else "",
            request_id=str(request.request_id),
            reply=self._reply,
        )

    def close(self) -> None:
        while not self._queue.empty():
            _, request = self._queue.get()
            self._refuse(request.request_id, "the pipeline ended")

    def _loaded(self, path: Path) -> Array:
        """The image or array in a file. Raises BackendError saying what is wrong with it."""
        from edgeml.errors import PictureError
        from inferencer.image_files import picture

        try:
            return picture(path, self._settings.max_pixels, self._allowed)
        except PictureError as error:
            raise BackendError(str(error)) from error

    def _resolved(self, request: Request) -> Path:
        """The real path, links and `..` resolved, which must lie below an allowed folder."""
        from edgeml.pictures import shown

        try:
            path = (Path(request.image_dir) / request.fname).resolve()
            is_there = path.exists()
        except (OSError, ValueError, RuntimeError) as error:  # a NUL byte, a loop of links
            raise BackendError(f"{request.fname!r} is no path: {error}") from error
        if not any(path.is_relative_to(folder) for folder in self._allowed):
            raise BackendError(f"{shown(path)} is not below one of allowed_dirs")
        if not is_there:
            raise BackendError(f"{shown(path)}: no such file")
        return path

    def _reply(self, result: InferenceResult) -> None:
        if self._settings.result_format == "full":
            self._publish(fitted(result, messages.MAX_IPC_BYTES))
            return
        top = result.results[0] if isinstance(result.results, list) and result.results else None
        label, score = (top.label, top.score) if isinstance(top, Classification | Detection) else ("", 0.0)
        self._publish(messages.encode(LabelReply(label, score, result.request_id, result.error)))

    def _refuse(self, request_id: str | int, error: str) -> None:
        request_id, error = str(request_id), error[:MAX_ERROR].encode(errors="replace").decode()
        self._health.count("requests_refused")
        log.warning("request refused %s", kv(request_id=request_id, error=error))
        full = self._settings.result_format == "full"
        reply = ErrorReply(error, request_id) if full else LabelReply("", 0.0, request_id, error)
        self._publish(messages.encode(reply))

    def _publish(self, payload: bytes) -> None:
        try:
            self._context.ipc.publish(self._settings.reply_topic, payload)
        except EdgemlError as error:
            self._health.error(error)
            log.error("%s", error)


def _named(path: Path) -> str:
    name = str(path)
    return name if len(messages.encode(name)) <= MAX_FILE else ""


class ReplySink(Sink):
    """Answers the request that a sample came from."""

    def put(self, sample: Sample, outcome: Outcome, result: InferenceResult) -> None:
        if sample.reply is not None:
            sample.reply(result)
