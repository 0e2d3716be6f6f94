"""Images named in requests: `{"image_dir", "fname", "request_id"?}` on a local topic, answered on another."""

import logging
import queue
import time
from pathlib import Path

import cv2
import msgspec
import numpy as np

from edgeml import messages
from edgeml.component import Context
from edgeml.errors import BackendError, EdgemlError
from edgeml.log import kv
from edgeml.messages import Classification, Detection, InferenceResult, Source
from inferencer.config import RequestSource
from inferencer.sample import Array, Sample
from inferencer.sinks import fitted

log = logging.getLogger(__name__)

IMAGES = {".jpg", ".jpeg", ".png"}
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
        kind = path.suffix.lower()
        try:
            if not path.is_file():
                raise BackendError(f"{path}: {'is a folder' if path.is_dir() else 'no such file'}")
            if kind == ".npy":
                return array(path, self._settings.max_pixels)
            if kind in IMAGES:
                return image(path, self._settings.max_pixels)
        except (OSError, MemoryError, cv2.error) as error:
            raise BackendError(f"{path}: {error}") from error
        raise BackendError(f"{path}: expected one of {', '.join(sorted(IMAGES))}, .npy")

    def _resolved(self, request: Request) -> Path:
        """The real path, links and `..` resolved, which must lie below an allowed folder."""
        try:
            path = (Path(request.image_dir) / request.fname).resolve()
        except (OSError, ValueError, RuntimeError) as error:  # a NUL byte, a loop of links
            raise BackendError(f"{request.fname!r} is no path: {error}") from error
        if not any(path.is_relative_to(folder) for folder in self._allowed):
            raise BackendError(f"{path} is not below one of allowed_dirs")
        return path

    def _reply(self, result: InferenceResult) -> None:
        if self._settings.result_format == "full":
            self._publish(fitted(result, messages.MAX_IPC_BYTES))
            return
        top = result.results[0] if isinstance(result.results, list) and result.results else None
        label, score = (top.label, top.score) if isinstance(top, Classification | Detection) else ("", 0.0)
        self._publish(messages.encode(LabelReply(label, score, result.request_id, result.error)))

    def _refuse(self, request_id: str | int, error: str) -> None:
        request_id, error = str(request_id), error[:MAX_ERROR]
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


def image(path: Path, max_pixels: int) -> Array:
    """An image file as BGR. Raises BackendError; the header is looked at before pixels are decoded."""
    width, height = size(path)
    if width * height > max_pixels:
        raise BackendError(f"{path}: {width}x{height} pixels, {max_pixels} pixels are allowed")
    decoded = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if decoded is None or decoded.size == 0:
        raise BackendError(f"{path}: not a readable image")
    return decoded


def size(path: Path) -> tuple[int, int]:
    """Width and height from a PNG's or JPEG's header. Raises BackendError for anything else."""
    with path.open("rb") as file:
        start = file.read(24)
        if start[:8] == b"\x89PNG\r\n\x1a\n" and len(start) == 24:
            return int.from_bytes(start[16:20]), int.from_bytes(start[20:24])
        if start[:2] == b"\xff\xd8":
            file.seek(2)
            while (marker := file.read(4)) and len(marker) == 4 and marker[0] == 0xFF:
                # SOF0..SOF15 but DHT, JPG and DAC (ITU-T T.81, table B.1) hold the frame's size
                if 0xC0 <= marker[1] <= 0xCF and marker[1] not in (0xC4, 0xC8, 0xCC):
                    frame = file.read(5)
                    return int.from_bytes(frame[3:5]), int.from_bytes(frame[1:3])
                file.seek(int.from_bytes(marker[2:4]) - 2, 1)
    raise BackendError(f"{path}: not a JPEG or PNG image")


def array(path: Path, max_pixels: int) -> Array:
    """An .npy file: an image (height, width, 3) or (height, width) of uint8, or a vector. Raises BackendError."""
    try:
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # a header is parsed as Python, and a wrong one fails in many ways
        raise BackendError(f"{path}: not an .npy file of numbers: {error}") from error
    if not isinstance(mapped, np.ndarray):
        mapped.close()
        raise BackendError(f"{path}: expected one array, found an archive of several")
    if mapped.dtype.kind not in "uif":
        raise BackendError(f"{path}: expected numbers, found {mapped.dtype}")
    picture = mapped.ndim == 2 or (mapped.ndim == 3 and mapped.shape[2] == 3)
    if mapped.ndim != 1 and not (picture and mapped.dtype == np.uint8):
        expected = "(height, width, 3) or (height, width) of uint8, or (n,)"
        raise BackendError(f"{path}: shape {mapped.shape} of {mapped.dtype}, expected {expected}")
    if mapped.size == 0 or mapped.size > max_pixels * 3:
        raise BackendError(f"{path}: {mapped.size} numbers, 1 to {max_pixels * 3} are allowed")
    return np.array(mapped)
