"""Images named in requests: `{"image_dir", "fname", "request_id"?}` on a local topic, answered on another."""

import io
import logging
import math
import queue
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from edgeml import messages, pictures
from edgeml.component import Context
from edgeml.errors import BackendError, EdgemlError
from edgeml.log import kv
from edgeml.messages import Classification, Detection, InferenceResult, Source
from edgeml.pictures import PictureError, shown
from inferencer.config import RequestSource
from inferencer.sample import Array, Sample
from inferencer.sinks import fitted

log = logging.getLogger(__name__)

IMAGES = {".jpg", ".jpeg", ".png"}
FORMATS = ("JPEG", "PNG")
MAX_REPORT = 200  # characters of a request that go into an error
MAX_ERROR = 1000  # characters of an answer that is an error


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


class RequestSamples:
    """Samples of requests. Whatever is wrong with a request becomes its answer, never an end of the pipeline."""

    def __init__(self, settings: RequestSource, context: Context, prefix: str) -> None:
        self._settings, self._context, self._prefix = settings, context, prefix
        self._allowed = [Path(folder).resolve() for folder in settings.allowed_dirs]
        self._queue: queue.Queue[tuple[int, Request]] = queue.Queue(settings.queue)
        context.health.gauge(f"{prefix}.requests_waiting", lambda: float(self._queue.qsize()))

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
        try:
            arrived_ns, request = self._queue.get(timeout=timeout)
        except queue.Empty:
            return None
        try:
            data = self._loaded(request)
        except BackendError as error:
            self._refuse(request.request_id, str(error))
            return None
        except Exception as error:
            self._refuse(request.request_id, f"internal error: {error!r}")
            raise
        return Sample(
            data=data,
            source=Source(topic=self._settings.topic, captured_at=time.time()),
            arrived_ns=arrived_ns,
            pixel_format="bgr24" if data.ndim > 1 else "",
            request_id=str(request.request_id),
            reply=self._reply,
        )

    def close(self) -> None:
        while not self._queue.empty():
            _, request = self._queue.get()
            self._refuse(request.request_id, "the pipeline ended")

    def _loaded(self, request: Request) -> Array:
        """The image or array that a request names. Raises BackendError saying what is wrong with it."""
        path = self._resolved(request)
        try:
            return picture(path, self._settings.max_pixels, self._allowed)
        except PictureError as error:
            raise BackendError(str(error)) from error

    def _resolved(self, request: Request) -> Path:
        """The real path, links and `..` resolved, which must lie below an allowed folder."""
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
        self._context.health.count(f"{self._prefix}.requests_refused")
        log.warning("request refused %s", kv(request_id=request_id, error=error))
        full = self._settings.result_format == "full"
        reply = ErrorReply(error, request_id) if full else LabelReply("", 0.0, request_id, error)
        self._publish(messages.encode(reply))

    def _publish(self, payload: bytes) -> None:
        try:
            self._context.ipc.publish(self._settings.reply_topic, payload)
        except EdgemlError as error:
            self._context.health.error(error)
            log.error("%s", error)


def picture(path: Path, max_pixels: int, below: Sequence[Path] = ()) -> Array:
    """The image or array in a file, by its suffix. Raises PictureError; `below` is as in pictures.file_bytes."""
    kind = path.suffix.lower()
    if kind == ".npy":
        return array(pictures.file_bytes(path, below=below), shown(path), max_pixels)
    if kind in IMAGES:
        return pictures.load(path, max_pixels=max_pixels, formats=FORMATS, below=below)
    raise PictureError(f"{shown(path)}: expected one of {', '.join(sorted(IMAGES))}, .npy")


def array(data: bytes, name: str, max_pixels: int) -> Array:
    """An .npy file: an image (height, width, 3) or (height, width) of uint8, or a vector. Raises PictureError."""
    if data.startswith(b"PK"):
        raise PictureError(f"{name}: expected one array, found an archive of several")
    shape, order, dtype, begin = _npy_header(data, name)
    if dtype.kind not in "uif":
        raise PictureError(f"{name}: expected numbers, found {dtype}")
    is_picture = len(shape) == 2 or (len(shape) == 3 and shape[2] == 3)
    if len(shape) != 1 and not (is_picture and dtype == np.uint8):
        expected = "(height, width, 3) or (height, width) of uint8, or (n,)"
        raise PictureError(f"{name}: shape {shape} of {dtype}, expected {expected}")
    count = math.prod(shape)
    if not 1 <= count <= max_pixels * 3:
        raise PictureError(f"{name}: {count} numbers, 1 to {max_pixels * 3} are allowed")
    if len(data) - begin < count * dtype.itemsize:
        raise PictureError(f"{name}: not an .npy file of numbers: cut off")
    return np.frombuffer(data, dtype, count, begin).reshape(shape, order=order).copy()


def _npy_header(data: bytes, name: str) -> tuple[tuple[int, ...], Literal["C", "F"], np.dtype[Any], int]:
    """(shape, order, dtype, where the numbers begin)."""
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(file)
    except Exception as error:  # a header is parsed as Python, and a wrong one fails in many ways
        raise PictureError(f"{name}: not an .npy file of numbers: {error}") from error
    if dtype.hasobject:
        raise PictureError(f"{name}: not an .npy file of numbers: it holds objects")
    if any(side < 0 for side in shape):
        raise PictureError(f"{name}: not an .npy file of numbers: shape {shape}")
    return shape, "F" if is_fortran else "C", dtype, file.tell()
