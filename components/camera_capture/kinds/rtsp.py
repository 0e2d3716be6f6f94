"""A network camera that FFmpeg reads by its URL."""

from typing import Annotated

from msgspec import Meta

from camera_capture import rtsp_trouble
from camera_capture.camera import NetworkCamera
from camera_capture.video import Video, streamed

MAX_ASK_S = 3.0


class RtspCamera(NetworkCamera, frozen=True, kw_only=True, tag="rtsp"):
    location: Annotated[str | int, Meta(description="rtsp: URL")] = "0"

    def open(self) -> Video:
        """Raises SourceError."""
        return streamed(self)

    def trouble(self) -> str:
        return rtsp_trouble.trouble(self.where, min(MAX_ASK_S, self.stall_timeout_s / 2))
