"""A network camera that FFmpeg reads by its URL."""

from typing import Annotated

from msgspec import Meta

from camera_capture.camera import NetworkCamera
from camera_capture.video import Video, streamed


class RtspCamera(NetworkCamera, frozen=True, kw_only=True, tag="rtsp"):
    location: Annotated[str | int, Meta(description="rtsp: URL")] = "0"

    def open(self) -> Video:
        """Raises SourceError."""
        return streamed(self)
