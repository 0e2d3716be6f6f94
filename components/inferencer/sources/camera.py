"""Frames of a camera as samples, read in place from its ring."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from msgspec import Meta

from edgeml.fields import Name
from edgeml.messages import SampleRef
from edgeml.pace import Pacer
from inferencer.parts import Place, SampleSource, SourceSettings
from inferencer.sample import Sample

if TYPE_CHECKING:
    from pathlib import Path

    from edgeml.frames import Frame
    from edgeml.health import Health


class CameraSource(SourceSettings, frozen=True, tag="camera", tag_field="type"):
    moving: ClassVar[bool] = True

    camera: Annotated[Name, Meta(description="Camera whose frame ring is read")]
    policy: Annotated[
        Literal["newest", "every"], Meta(description="Skip to the newest frame, or take each one still in the ring")
    ] = "newest"
    max_fps: Annotated[float, Meta(ge=0, le=1000, description="At most so many frames per second; 0 for no limit")] = 0
    when: Annotated[
        Literal["always", "motion"],
        Meta(description="Take frames always, or while something moves, if the camera looks for motion"),
    ] = "always"
    idle_every_s: Annotated[
        float,
        Meta(ge=0, le=86400, description="For `when: motion`: seconds between looks while nothing moves; 0: none"),
    ] = 10.0

    @property
    def seen(self) -> str:
        return self.camera

    def open(self, place: Place) -> SampleSource:
        return CameraSamples(self, place.rings, place.context.health, place.prefix)


class CameraSamples(SampleSource):
    """Samples of one camera's frames. The camera may come, go and change its size at any time."""

    def __init__(self, settings: CameraSource, directory: Path, health: Health, prefix: str) -> None:
        from edgeml.frames import FrameReader

        self._camera = settings.camera
        self._pacer = Pacer(1 / settings.max_fps if settings.max_fps else 0.0)
        self._needs_motion = settings.when == "motion"
        self._idle_every_s = settings.idle_every_s
        self._idle_due = time.monotonic()
        self._still = 0
        self._is_blind = False
        self._reader = FrameReader(settings.camera, directory=directory, policy=settings.policy)
        self._health = health.scope(prefix)
        stats = self._reader.stats
        self._health.gauge("frames_skipped", lambda: float(stats.skipped))
        self._health.gauge("frames_lapped", lambda: float(stats.lapped))
        self._health.gauge("frames_torn", lambda: float(stats.torn))
        if self._needs_motion:
            self._health.gauge("frames_still", lambda: float(self._still))

    def next(self, timeout: float) -> Sample | None:
        wait = self._pacer.wait_s()
        if wait > 0:
            time.sleep(min(wait, timeout))
            if wait > timeout:
                return None
        frame = self._read(timeout)
        if frame is None:
            waiting = "" if self._reader.writer_alive() else f"waiting for camera {self._camera}"
            self._health.scope("camera").note(waiting)
            return None
        self._pacer.took()
        self._idle_due = time.monotonic() + self._idle_every_s
        return Sample(
            data=frame.image,
            source=SampleRef(camera=self._camera, frame_id=frame.frame_id, captured_at=frame.wall_ns / 1e9),
            arrived_ns=frame.captured_ns,
            pixel_format=frame.pixel_format,
            valid=frame.valid,
        )

    def _read(self, timeout: float) -> Frame | None:
        """The next frame that is to be taken, within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while (frame := self._reader.read(timeout, copy=False)) is not None:
            if not self._needs_motion:
                return frame
            self._tell_blind(frame.motion is None)
            now = time.monotonic()
            idle = self._idle_every_s and now >= self._idle_due
            if frame.motion is None or frame.motion.moving or idle:
                return frame
            self._still += 1
            if now >= deadline:
                return None
            timeout = deadline - now
        return None

    def _tell_blind(self, is_blind: bool) -> None:
        if is_blind != self._is_blind:
            self._is_blind = is_blind
            text = f"camera {self._camera} does not look for motion: its frames are taken always"
            self._health.scope("motion").note(text if is_blind else "")

    def close(self) -> None:
        self._reader.close()
