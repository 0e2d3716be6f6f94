"""The same file or camera, every so often."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from msgspec import Meta

from edgeml.errors import BackendError, ConfigError
from edgeml.messages import SampleRef
from inferencer.parts import Place, SampleSource, SourceSettings
from inferencer.payloads import numbers
from inferencer.sample import Array, Sample, Values
from inferencer.sources.clock import Clock

if TYPE_CHECKING:
    from edgeml.frames import FrameReader

MAX_PIXELS = 50_000_000
MAX_TEXT_BYTES = 1 << 20


class TimerSource(SourceSettings, frozen=True, tag="timer", tag_field="type"):
    moving: ClassVar[bool] = True

    every_s: Annotated[float, Meta(gt=0, le=86400, description="Seconds between two readings")] = 1.0
    file: Annotated[str, Meta(description="Image, .npy or text file, read anew each time")] = ""
    camera: Annotated[str, Meta(description="Camera whose newest frame is taken, instead of a file")] = ""

    @property
    def seen(self) -> str:
        return self.camera

    def check(self, path: str, thing: str) -> None:
        if bool(self.file) == bool(self.camera):
            raise ConfigError(path, "a timer needs either file or camera")

    def open(self, place: Place) -> SampleSource:
        return TimerSamples(self, place.rings, place.prefix)


class TimerSamples(SampleSource):
    """The same file, or the newest frame of a camera, every so often."""

    def __init__(self, settings: TimerSource, directory: Path, prefix: str) -> None:
        settings.check(f"{prefix}.source", "")
        self._settings = settings
        self._clock = Clock(settings.every_s)
        self._reader: FrameReader | None = None
        if settings.camera:
            from edgeml.frames import FrameReader

            self._reader = FrameReader(settings.camera, directory=directory)

    def next(self, timeout: float) -> Sample | None:
        if not self._clock.wait(timeout):
            return None
        if self._reader is not None:
            frame = self._reader.read(timeout)
            if frame is None:
                raise BackendError(f"camera {self._settings.camera} has no new frame")
            source = SampleRef(camera=self._settings.camera, frame_id=frame.frame_id, captured_at=frame.wall_ns / 1e9)
            return Sample(frame.image, source, frame.captured_ns, frame.pixel_format)
        data = read(Path(self._settings.file))
        source = SampleRef(topic=self._settings.file, captured_at=time.time())
        return Sample(data, source, time.monotonic_ns(), "bgr24")

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()


def read(path: Path) -> Array | Values:
    """An image, an .npy array or a text of numbers. Raises BackendError."""
    from edgeml.errors import PictureError
    from edgeml.pictures import file_bytes
    from inferencer.image_files import IMAGES, picture

    try:
        if path.suffix.lower() in (*IMAGES, ".npy"):
            return picture(path, MAX_PIXELS)
        return numbers(file_bytes(path, max_bytes=MAX_TEXT_BYTES))
    except PictureError as error:
        raise BackendError(str(error)) from error
