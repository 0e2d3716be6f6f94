"""A video file."""

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from camera_capture.camera import VideoCamera
from camera_capture.video import Video, reader
from edgeml import redact
from edgeml.errors import SourceError


class FileCamera(VideoCamera, frozen=True, kw_only=True, tag="file"):
    location: Annotated[str | int, Meta(description="file: path")] = "0"
    loop: Annotated[bool, Meta(description="file: begin again at the end instead of stopping there")] = True

    def open(self) -> Video:
        """Raises SourceError."""
        path = Path(self.place())
        if not path.is_file():
            raise SourceError(f"{redact.location(self.where)}: no such file")
        return Video(self, lambda: reader(self, f"file:{path}"), live=False, loop=self.loop)
