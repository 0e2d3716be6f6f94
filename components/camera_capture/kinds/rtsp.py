"""A network camera that FFmpeg reads by its URL."""

from typing import Annotated, Literal

from msgspec import Meta

from camera_capture import rtsp_trouble
from camera_capture.camera import NetworkCamera
from camera_capture.http_address import escaped, split
from camera_capture.packets import PacketReader
from camera_capture.video import Video, reader

MAX_ASK_S = 3.0
ANALYZED, MOST_S = 0.6, 2.0  # of `stall_timeout_s`: what the stream has not said of itself by then, its frames say


class RtspCamera(NetworkCamera, frozen=True, kw_only=True, tag="rtsp"):
    location: Annotated[str | int, Meta(description="rtsp: URL")] = "0"
    transport: Annotated[
        Literal["tcp", "udp"], Meta(description="rtsp: how its packets come; over udp some may be lost")
    ] = "tcp"

    def open(self) -> Video:
        """Raises SourceError."""
        self.place()  # which may be none that FFmpeg can be given
        return Video(self, self.reader)

    def reader(self) -> PacketReader:
        url = escaped(self.place())
        options = {"analyzeduration": str(round(min(MOST_S, ANALYZED * self.stall_timeout_s) * 1e6))}
        if split(url)[0] in ("rtsp", "rtsps"):
            options["rtsp_transport"] = self.transport
        return reader(self, url, options)

    def trouble(self) -> str:
        return rtsp_trouble.trouble(self.where, min(MAX_ASK_S, self.stall_timeout_s * 0.4))
