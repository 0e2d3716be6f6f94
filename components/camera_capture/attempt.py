"""One reading of a source, on a thread of its own: a driver can block for ever, and a thread cannot be killed."""

import logging
import threading
import time
from typing import TYPE_CHECKING, Protocol

from camera_capture.camera import Camera
from camera_capture.errors import UndecodableError
from camera_capture.pace import Pace
from camera_capture.passwords import Password
from camera_capture.privacy import PrivacyMasks
from camera_capture.source import Source, reason, translated
from edgeml import redact
from edgeml.errors import EdgemlError, SourceError
from edgeml.health import Scope
from edgeml.log import kv

if TYPE_CHECKING:
    from camera_capture.preroll import Tap
    from camera_capture.source import Image

log = logging.getLogger(__name__)

# A stream of which nothing can be decoded is opened anew: after so many frames, or so many times `stall_timeout_s`.
MAX_UNDECODABLE, SILENT = 30, 3


class Owner(Protocol):
    """Whose attempt it is, who has the ring."""

    name: str
    camera: Camera
    health: Scope
    stopping: threading.Event

    def password(self, reference: Password) -> str:
        """Raises SourceError."""

    def tap(self) -> "Tap | None":
        """Who takes the packets of a source that is opened now."""

    def is_current(self, attempt: "Attempt") -> bool:
        """Whether the right to write is its own."""

    def put(self, attempt: "Attempt", image: "Image", captured_ns: int) -> bool:
        """Write a frame; False if the attempt has no right to any more. Raises FrameError."""


class Attempt(threading.Thread):
    """Opens the source once and reads it until it ends, fails, or the worker takes its right to write away."""

    def __init__(self, worker: Owner) -> None:
        super().__init__(name=f"read-{worker.name}", daemon=True)
        self._worker, self._camera = worker, worker.camera
        self._health = worker.health
        self._passed_over = self._health.scope("passed_over")
        self._decoding = self._health.scope("decoding")
        self.sign_of_life = self.began = time.monotonic()
        self.frames = 0
        self.ended = False
        self.error = ""
        self.unexpected: Exception | None = None
        self._source: Source | None = None
        self._reading: Source | None = None
        self._masks = PrivacyMasks(self._camera.privacy_masks)
        self._passed = 0
        self._undecodable = 0
        self._last_good = self.began

    def cancel(self) -> None:
        """Wake a waiting read, where the source can be woken. The right to write must be gone already."""
        if self._source is not None:
            self._source.cancel()

    def silent_s(self) -> float:
        """For how long it has shown no sign of life."""
        heard = self._reading.sign_of_life if self._reading is not None else 0.0
        return time.monotonic() - max(self.sign_of_life, heard)

    def run(self) -> None:
        try:
            self._camera = self._camera.unlocked(self._worker.password)
            self._source = self._camera.open()
            self._source.packets = self._worker.tap()
            try:
                self._source.open()
                self._reading = self._source.reading
                self._read(self._reading)
            finally:
                self._source.close()
        except Exception as error:  # noqa: BLE001  (what drivers and decoders raise is this camera's failure alone)
            self.error = self.error or reason(error, self._camera.where)
            self.unexpected = None if isinstance(error, EdgemlError) else error

    def _read(self, source: Source) -> None:
        worker, camera = self._worker, self._camera
        where = redact.location(camera.where)
        log.info("source open %s", kv(camera=worker.name, type=camera.kind, location=where))
        self._health.note("")
        pace = Pace(camera.fps if source.live else camera.fps or source.fps, live=source.live)
        while worker.is_current(self):
            if source.position is None or camera.fps:
                self._wait(pace.ahead())
            self.sign_of_life = time.monotonic()
            if not source.grab():
                self.ended = True
                return
            self._tell_trouble(source)
            if source.position is not None and not camera.fps:
                self._wait(pace.wait_for(source.position))
            captured_ns = source.captured_ns or time.monotonic_ns()
            self.sign_of_life = time.monotonic()
            if not pace.due():
                self._health.count("dropped")
                continue
            grabbed = time.monotonic()
            image = self._image(source)
            self._tell_software(source)
            if image is not None and not self._put(image, captured_ns, grabbed):
                return

    def _wait(self, seconds: float) -> None:
        if seconds > 0:
            self.sign_of_life = time.monotonic() + seconds  # our own waiting is no hang
            self._worker.stopping.wait(seconds)

    def _image(self, source: Source) -> "Image | None":
        """The frame as the ring wants it; None for one of a few that cannot be decoded."""
        try:
            image = source.retrieve()
        except UndecodableError as error:
            self._undecodable += 1
            self._health.count("undecodable")
            silent_s = time.monotonic() - self._last_good
            if self._undecodable > MAX_UNDECODABLE or silent_s > SILENT * self._camera.stall_timeout_s:
                raise SourceError(f"{self._undecodable} frames in a row: {error}") from error
            self._health.error(f"camera {self._worker.name}: {error}")
            return None
        self._undecodable, self._last_good = 0, time.monotonic()
        with translated(self._camera.where):
            return shaped(self._masks.applied(image), self._camera)  # first: to scale it would spread what is hidden

    def _put(self, image: "Image", captured_ns: int, grabbed: float) -> bool:
        if not self._worker.put(self, image, captured_ns):
            return False
        if not self.frames:
            self._health.cleared("source_failed")
        self.frames += 1
        self._health.count("captured")
        self._health.observe("write", time.monotonic() - grabbed)
        return True

    def _tell_software(self, source: Source) -> None:
        if source.software:
            self._decoding.found("software_decodes", source.software)
        else:
            self._decoding.cleared("software_decodes")

    def _tell_trouble(self, source: Source) -> None:
        """What the source passed over: counted, and a problem as long as it lasts."""
        if source.passed > self._passed:
            self._health.count("undecodable", source.passed - self._passed)
            self._passed = source.passed
        if source.trouble:
            self._passed_over.found("source_failed", source.trouble)
        else:
            self._passed_over.cleared("source_failed")


def shaped(image: "Image", camera: Camera) -> "Image":
    """`image` in the size and pixel format of the ring."""
    import cv2

    height, width = image.shape[:2]
    wanted = (camera.width or width, camera.height or height)
    if wanted != (width, height):
        image = cv2.resize(image, wanted, interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
    if camera.pixel_format == "gray8" and image.ndim == 3:
        return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)  # type: ignore[return-value]
    if camera.pixel_format != "gray8" and image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)  # type: ignore[assignment]
    if camera.pixel_format == "rgb24":
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)  # type: ignore[return-value]
    return image
